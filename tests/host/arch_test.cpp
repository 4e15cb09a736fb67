// SPDX-License-Identifier: Apache-2.0
// One cache on every instruction set that this build may use: the same codes, nearly the same
// answers. (Golden codes in format/ hold builds with other flags together.)
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"

// After the library, whose own `Simd` is already chosen.
#include "kvast/host/simd_portable.h"
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kvast/host/simd_avx2.h"
#endif

namespace kvast {
namespace {

constexpr Shape kShape{.query_heads = 7, .heads = 1, .head_dim = 72, .value_dim = 104};

struct Outcome {
  std::vector<float> outputs, keys, values;
  std::vector<int> kept;
};

template <class Arch, class Policy>
Outcome run(Policy policy, const BasicAnyStorage<Arch>& storage) {
  BlockPool pool;
  KVCache<Policy, BasicAnyStorage<Arch>, Arch> cache(kShape, policy, storage, pool);
  test::Random random(12);
  Outcome outcome;
  for (int step = 0; step < 60; ++step) {
    const int count = step == 0 ? 400 : step == 30 ? 70 : 1;
    const auto size = [&](int width) { return static_cast<std::size_t>(count * width); };
    const auto keys = random.normals(size(72));
    const auto values = random.normals(size(104));
    const auto queries = random.normals(size(7 * 72));
    std::vector<float> output(size(7 * 104));
    auto pass = cache.begin({.tokens = count, .last_of_prompt = step == 0});
    pass->append(0, std::span(keys), std::span(values));
    pass->attend(0, std::span(queries), std::span(output), {.softcap = 20.0F});
    pass->commit(0);
    outcome.outputs.insert(outcome.outputs.end(), output.begin(), output.end());
  }
  outcome.kept = cache.kept(0, 0);
  outcome.keys.resize(outcome.kept.size() * 72);
  outcome.values.resize(outcome.kept.size() * 104);
  cache.export_dense(0, std::span(outcome.keys), std::span(outcome.values));
  return outcome;
}

/// `coded`: rows that meet codes are rounded to a byte, here and there to the other neighbour.
[[maybe_unused]] void expect_alike(const Outcome& one, const Outcome& two, bool coded) {
  EXPECT_EQ(one.kept, two.kept);
  EXPECT_EQ(one.keys, two.keys) << "the same codes";
  EXPECT_EQ(one.values, two.values);
  ASSERT_EQ(one.outputs.size(), two.outputs.size());
  double apart = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < one.outputs.size(); ++at) {
    ASSERT_NEAR(one.outputs[at], two.outputs[at], coded ? 2e-3 : 1e-5);
    apart += std::pow(static_cast<double>(one.outputs[at] - two.outputs[at]), 2);
    norm += std::pow(static_cast<double>(one.outputs[at]), 2);
  }
  EXPECT_LE(std::sqrt(apart / norm), coded ? 4e-3 : 3e-6);
}

template <class Policy, class Storage>
void expect_equal(Policy policy, Storage storage, [[maybe_unused]] bool coded = false) {
  const Outcome portable = run<portable::Simd>(policy, storage);
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  expect_alike(run<avx2::Simd>(policy, storage), portable, coded);
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  expect_alike(run<avx512::Simd>(policy, storage), portable, coded);
#endif
  EXPECT_GT(portable.keys.size(), 0U);
}

TEST(InstructionSets, AgreeOnDenseCaches) {
  expect_equal(Full{}, Dense<float>{});
  expect_equal(SnapKV{.tokens_kept = 200}, Dense<half>{});
}

TEST(InstructionSets, AgreeOnCodes) {
  expect_equal(Full{}, Kivi<4>{.residual = 32}, true);
  expect_equal(Full{}, Kivi<3, 2>{.residual = 32}, true);
  expect_equal(Full{}, TurboQuant<3, 4>{}, true);
  expect_equal(Full{}, Int8{}, true);
  expect_equal(Full{}, Float8<E4M3>{});
  expect_equal(Full{}, Float8<E5M2>{});
  expect_equal(Full{}, Dense<BF16>{});
  // repacking encodes decoded keys again
  expect_equal(L2Norm{.tokens_kept = 300, .skip = {}, .when = When::full(10)},
               Kivi<4>{.residual = 32}, true);
}

/// A vector operation against the libm, lane by lane.
template <class Arch>
void expect_powers() {
  alignas(64) float numbers[16];
  alignas(64) float powers[16];
  test::Random random(13);
  for (int turn = 0; turn < 20000; ++turn) {
    for (float& number : numbers) number = static_cast<float>(-87.0 + 175.0 * random.uniform());
    if (turn == 0) numbers[0] = 0.0F;
    for (int at = 0; at < 16; at += Arch::kLanes)
      Arch::store(powers + at, exp_lanes<Arch>(Arch::load(numbers + at)));
    for (int at = 0; at < 16; ++at) {
      const double wanted = std::exp(static_cast<double>(numbers[at]));
      ASSERT_NEAR(static_cast<double>(powers[at]), wanted, 2.5e-7 * wanted) << numbers[at];
    }
  }
  for (float& number : numbers) number = -3e38F;
  Arch::store(powers, exp_lanes<Arch>(Arch::load(numbers)));
  EXPECT_GE(powers[0], 0.0F);
  EXPECT_LE(powers[0], 2e-38F);
}

template <class Arch>
void expect_lanes() {
  alignas(64) float numbers[16];
  for (int at = 0; at < 16; ++at) numbers[at] = static_cast<float>((at * 7) % 16) - 20.0F;
  const auto vector = Arch::load(numbers);
  float sum = 0.0F;
  float most = -100.0F;
  for (int at = 0; at < Arch::kLanes; ++at) {
    sum += numbers[at];
    most = std::max(most, numbers[at]);
  }
  EXPECT_EQ(Arch::reduce_add(vector), sum) << "whole numbers add exactly";
  EXPECT_EQ(Arch::reduce_max(vector), most);
  for (std::uint32_t bits = 0; bits < 0x7C00U; bits += static_cast<std::uint32_t>(Arch::kLanes)) {
    half halves[16] = {};
    for (int at = 0; at < Arch::kLanes; ++at)
      halves[at].bits =
          static_cast<std::uint16_t>(std::min(0x7BFFU, bits + static_cast<unsigned>(at)));
    const auto loaded = Arch::load_half(halves);
    Arch::store(numbers, loaded);
    half back[16];
    Arch::store_half(back, loaded);
    for (int at = 0; at < Arch::kLanes; ++at) {
      ASSERT_EQ(numbers[at], to_float(halves[at]));
      ASSERT_EQ(back[at].bits, halves[at].bits);
    }
  }
}

TEST(InstructionSets, VectorOperations) {
  expect_powers<portable::Simd>();
  expect_lanes<portable::Simd>();
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  expect_powers<avx2::Simd>();
  expect_lanes<avx2::Simd>();
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
  expect_powers<avx512::Simd>();
  expect_lanes<avx512::Simd>();
#endif
}

}  // namespace
}  // namespace kvast
