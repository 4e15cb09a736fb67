// SPDX-License-Identifier: Apache-2.0
// Every storage with codes over 10,000 steps of H2O: dead slots stay few, a token is encoded again
// at most once on average, and what that adds to the error of its key is bounded.
#include <gtest/gtest.h>

#include <map>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr int kSteps = 10000;
constexpr std::size_t kDim = 32;
constexpr Shape kShape{.query_heads = 2, .heads = 1, .head_dim = kDim};

struct Case {
  const char* name;
  AnyStorage storage;
  int residual;
  double worse;  ///< error of a survivor's key over that of one that was encoded once, on average
};

Case cases(int index) {
  switch (index) {
    case 0:
      return {"Kivi2", Kivi<2>{.residual = 32}, 32, 2.5};
    case 1:
      return {"Kivi3", Kivi<3>{.residual = 32}, 32, 2.5};
    case 2:
      return {"Kivi4", Kivi<4>{.residual = 32}, 32, 2.5};
    case 3:
      return {"Kivi8", Kivi<8>{.residual = 32}, 32, 2.5};
    case 4:
      return {"Kivi4and2", Kivi<4, 2>{.residual = 32}, 32, 2.5};
    case 5:
      return {"Int8", Int8{}, 0, 2.5};
    case 6:
      return {"Int4", Int4{}, 0, 2.5};
    case 7:
      return {"E4M3", Float8<E4M3>{}, 0, 1.01};
    case 8:
      return {"E5M2", Float8<E5M2>{}, 0, 1.01};
    case 9:
      return {"TurboQuant2", TurboQuant<2>{}, 0, 2.5};
    case 10:
      return {"TurboQuant3", TurboQuant<3>{}, 0, 2.5};
    case 11:
      return {"TurboQuant4", TurboQuant<4>{}, 0, 2.5};
    default:
      return {"RotatedKivi2", Rotated<Kivi<2>>{{.residual = 32}}, 32, 2.5};
  }
}

using Keys = std::map<int, std::vector<float>>;

/// Mean squared error of the cache's keys at positions before `end`, relative to what arrived.
template <class Cache>
double error_of(Cache& cache, const Keys& arrived, int end) {
  const std::vector<int> kept = cache.kept(0, 0);
  std::vector<float> keys(kept.size() * kDim);
  cache.export_dense(0, std::span(keys), OutputView());
  double wrong = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < kept.size() && kept[at] < end; ++at) {
    const std::vector<float>& key = arrived.at(kept[at]);
    for (std::size_t dim = 0; dim < kDim; ++dim) {
      const auto number = static_cast<double>(key[dim]);
      wrong += std::pow(static_cast<double>(keys[at * kDim + dim]) - number, 2);
      norm += number * number;
    }
  }
  return std::sqrt(wrong / norm);
}

/// Of keys that were encoded once.
double error_once(const AnyStorage& storage) {
  BlockPool pool;
  KVCache<Full, AnyStorage> cache(kShape, {}, storage, pool);
  test::Random random(2);
  Keys arrived;
  const std::vector<float> keys = random.normals(1024 * kDim);
  for (std::size_t token = 0; token < 1024; ++token)
    arrived[static_cast<int>(token)] = {&keys[token * kDim], &keys[token * kDim] + kDim};
  auto pass = cache.begin({.tokens = 1024, .last_of_prompt = true});
  pass->append(0, std::span(keys), std::span(keys));
  pass->commit(0);
  return error_of(cache, arrived, 1024 - 64);
}

class CodedHistory : public testing::TestWithParam<int> {};

TEST_P(CodedHistory, KeepsItsBoundsOverTenThousandSteps) {
  const Case one = cases(GetParam());
  BlockPool pool;
  const H2O policy{.heavy = 192, .recent = 64, .by_lifetime = true};
  KVCache<H2O, AnyStorage> cache(kShape, policy, one.storage, pool);
  test::Random random(1);
  Keys arrived;
  std::vector<float> output(2 * kDim);
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<float> key = random.normals(kDim);
    const std::vector<float> value = random.normals(kDim);
    const std::vector<float> queries = random.normals(2 * kDim, 2.0);
    arrived[step] = key;
    auto pass = cache.begin({});
    pass->append(0, std::span(key), std::span(value));
    pass->attend(0, std::span(queries), std::span(output));
    pass->commit(0);
    // 4/3 of the live tokens, what waits, and a block
    ASSERT_LE(static_cast<int>(cache.slots(0, 0).size()),
              cache.tokens(0, 0) * 4 / 3 + one.residual + kBlockTokens)
        << "step " << step;
    ASSERT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
  }
  EXPECT_EQ(cache.tokens(0, 0), 256);
  const Stats stats = cache.stats();
  EXPECT_GT(stats.repacked, 0) << "the history must reach what it tests";
  EXPECT_LE(stats.sealed, stats.appended);
  EXPECT_LE(stats.repacked, stats.sealed) << "on average at most once per token that was encoded";
  const double once = error_once(one.storage);
  const double now = error_of(cache, arrived, kSteps - 64);
  std::printf("%s: keys encoded again %.2f times on average; error %.4f, once encoded %.4f: %.2f\n",
              one.name, static_cast<double>(stats.repacked) / static_cast<double>(stats.sealed),
              now, once, now / once);
  EXPECT_LE(now, once * one.worse);
}

INSTANTIATE_TEST_SUITE_P(All, CodedHistory, testing::Range(0, 13),
                         [](const auto& one) { return std::string(cases(one.param).name); });

}  // namespace
}  // namespace kvast
