// SPDX-License-Identifier: Apache-2.0
// attend against the reference in double: head sizes, groups, lengths, and ways to arrive.
#include "kvast/host/attend.h"

#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

/// Passes of the given token counts, the first a prompt, then decode steps. Half storage is given
/// numbers that it holds exactly, so it is held to the same error.
template <class Storage>
void expect_equal(const Shape& shape, const std::vector<int>& passes, std::uint64_t seed = 1) {
  Duel<Full, Storage> duel(shape, {}, {}, {}, seed);
  duel.rounds_to_half = std::is_same_v<Storage, Dense<half>>;
  for (std::size_t at = 0; at < passes.size(); ++at)
    duel.run({.tokens = passes[at], .last_of_prompt = at == 0});
  EXPECT_LE(duel.worst, 1e-5) << "head_dim " << shape.head_dim << " value_dim " << shape.value_dim
                              << " group " << shape.group() << " tokens " << duel.cache().length();
  EXPECT_LE(duel.worst_lse, 3e-5);
}

template <class Storage>
class Attend : public testing::Test {};
using Storages = testing::Types<Dense<float>, Dense<half>>;
TYPED_TEST_SUITE(Attend, Storages);

TYPED_TEST(Attend, EveryHeadDim) {
  for (const int head_dim : {8, 16, 24, 40, 64, 72, 96, 128, 256, 512})
    expect_equal<TypeParam>({.query_heads = 4, .heads = 2, .head_dim = head_dim}, {70, 1, 1});
}

TYPED_TEST(Attend, ValuesOfAnotherWidth) {
  for (const auto& [head_dim, value_dim] :
       {std::pair{64, 128}, {192, 128}, {40, 8}, {8, 512}, {512, 8}, {96, 72}, {72, 24}})
    expect_equal<TypeParam>(
        {.query_heads = 2, .heads = 2, .head_dim = head_dim, .value_dim = value_dim}, {70, 1, 3});
}

TYPED_TEST(Attend, EveryGroup) {
  for (const int group : {1, 2, 3, 5, 6, 7, 8, 13, 64, 65, 71, 130})
    expect_equal<TypeParam>({.query_heads = group * 2, .heads = 2, .head_dim = 32}, {40, 1, 4});
}

TYPED_TEST(Attend, EveryLength) {
  for (const int length : {1, 2, 31, 32, 33, 63, 64, 65, 96, 100, 1025}) {
    expect_equal<TypeParam>({.query_heads = 3, .heads = 1, .head_dim = 64}, {length});
    expect_equal<TypeParam>({.query_heads = 3, .heads = 1, .head_dim = 64}, {length, 1, 1});
  }
}

// Long enough for the work to be split by blocks and merged by log-sum-exp.
TYPED_TEST(Attend, SplitsOfALongSequence) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 64};
  expect_equal<TypeParam>(shape, {2100, 1, 1});
  expect_equal<TypeParam>(shape, {2047, 1, 1, 2});
  expect_equal<TypeParam>({.query_heads = 71, .heads = 1, .head_dim = 40}, {2100, 1});
}

TYPED_TEST(Attend, PromptInChunksAndSeveralTokensAtOnce) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 40, .value_dim = 72};
  expect_equal<TypeParam>(shape, {1, 1, 1, 1, 1});
  expect_equal<TypeParam>(shape, {31, 33, 64, 1, 5, 100, 2, 1, 7});
  expect_equal<TypeParam>(shape, {1025, 3, 21, 22, 64, 65});
}

TEST(Attend, HalfStorageLosesOnlyItsRounding) {
  for (const int head_dim : {64, 128, 512}) {
    Duel<Full, Dense<half>> duel({.query_heads = 4, .heads = 2, .head_dim = head_dim}, {}, {});
    for (const int tokens : {200, 1, 1}) duel.run({.tokens = tokens});
    EXPECT_LE(duel.worst, 2e-3);
    EXPECT_GE(duel.worst, 1e-5) << "the numbers were not rounded at all";
  }
}

TEST(Attend, DecodeFromNothing) {
  Duel<Full, Dense<float>> duel({.query_heads = 4, .heads = 2, .head_dim = 32}, {}, {});
  for (int step = 0; step < 100; ++step) duel.run({});
  EXPECT_LE(duel.worst, 1e-5);
}

TEST(Attend, PositionsMayHaveGaps) {
  Duel<Full, Dense<float>> duel({.query_heads = 4, .heads = 2, .head_dim = 32}, {}, {});
  const std::vector<int> first{3, 4, 9, 100};
  const std::vector<int> second{101, 1000, (1 << 30) - 2};
  duel.run({.tokens = 4, .positions = first});
  EXPECT_EQ(duel.cache().length(), 101);
  duel.run({.tokens = 3, .positions = second});
  EXPECT_EQ(duel.cache().kept(0, 1), (std::vector<int>{3, 4, 9, 100, 101, 1000, (1 << 30) - 2}));
  duel.run({});
  EXPECT_LE(duel.worst, 1e-5);
}

TEST(Attend, LayersOfDifferentShape) {
  BlockPool pool;
  const std::vector<Shape> runs{{.query_heads = 4, .heads = 2, .head_dim = 64},
                                {.query_heads = 6, .heads = 1, .head_dim = 40, .value_dim = 16}};
  KVCache<Full, Dense<float>> cache(runs, {}, {}, pool);
  test::Random random(5);
  for (const int count : {40, 1, 1}) {
    auto pass = cache.begin({.tokens = count});
    for (int layer = 0; layer < 2; ++layer) {
      const Shape& shape = runs[static_cast<std::size_t>(layer)];
      const auto size = [&](int heads, int dim) {
        return static_cast<std::size_t>(count * heads * dim);
      };
      const auto keys = random.normals(size(shape.heads, shape.head_dim));
      const auto values = random.normals(size(shape.heads, shape.values()));
      const auto queries = random.normals(size(shape.query_heads, shape.head_dim));
      std::vector<float> output(size(shape.query_heads, shape.values()));
      pass->append(layer, std::span(keys), std::span(values));
      pass->attend(layer, std::span(queries), std::span(output));
      pass->commit(layer);
    }
  }
  EXPECT_EQ(cache.tokens(0, 1), 42);
  EXPECT_EQ(cache.tokens(1, 0), 42);
}

// Logits far apart: the maximum is subtracted, nothing overflows, and far tokens simply vanish.
TEST(Attend, LargeLogits) {
  Duel<Full, Dense<float>> duel({.query_heads = 2, .heads = 1, .head_dim = 64}, {}, {});
  test::ReferenceRules rules{.scale = 30.0};
  duel.run({.tokens = 90}, {.scale = 30.0F}, rules);
  duel.run({}, {.scale = 30.0F}, rules);
  EXPECT_LE(duel.worst, 2e-3) << "logits near 1,000 carry an error of 1e-4 in float";
  for (const float number : duel.output) EXPECT_TRUE(std::isfinite(number));
}

/// Decoded codes of the cache as a reference layer.
template <class Cache>
test::ReferenceLayer decoded(Cache& cache, const Shape& shape) {
  const auto tokens = static_cast<std::size_t>(cache.tokens(0, 0));
  std::vector<float> keys(tokens * static_cast<std::size_t>(shape.heads * shape.head_dim));
  std::vector<float> values(tokens * static_cast<std::size_t>(shape.heads * shape.values()));
  cache.export_dense(0, std::span(keys), std::span(values));
  test::ReferenceLayer layer(shape.query_heads, shape.heads, shape.head_dim, shape.values());
  layer.append(cache.kept(0, 0), keys.data(), values.data());
  return layer;
}

TEST(AttendCoded, EqualsAttentionOnDecodedCodes) {
  struct Case {
    Shape shape;
    int prompt;
    int residual;
  };
  const Case cases[] = {{{.query_heads = 4, .heads = 2, .head_dim = 64}, 200, 32},
                        {{.query_heads = 4, .heads = 2, .head_dim = 64}, 200, 0},
                        {{.query_heads = 2, .heads = 2, .head_dim = 8}, 300, 5},
                        {{.query_heads = 3, .heads = 1, .head_dim = 40}, 130, 64},
                        {{.query_heads = 2, .heads = 1, .head_dim = 72, .value_dim = 96}, 130, 0},
                        {{.query_heads = 8, .heads = 1, .head_dim = 128, .value_dim = 40}, 100, 0},
                        {{.query_heads = 71, .heads = 1, .head_dim = 96}, 100, 10},
                        {{.query_heads = 2, .heads = 1, .head_dim = 256}, 70, 0},
                        {{.query_heads = 2, .heads = 1, .head_dim = 512}, 70, 1},
                        {{.query_heads = 2, .heads = 1, .head_dim = 64}, 2100, 128}};
  for (const Case& one : cases) {
    const Shape& shape = one.shape;
    Duel<Full, Kivi<4>> duel(shape, {}, {.residual = one.residual});
    duel.run({.tokens = one.prompt, .last_of_prompt = true}, {}, {}, 1);
    for (int step = 0; step < 3; ++step) {
      test::ReferenceLayer codes = decoded(duel.cache(), shape);
      const int position = duel.cache().length();
      duel.run({}, {}, {}, 1);
      for (float& number : duel.keys)
        number = static_cast<float>(test::nearest_half(static_cast<double>(number)));
      for (float& number : duel.values)
        number = static_cast<float>(test::nearest_half(static_cast<double>(number)));
      codes.append(std::vector<int>{position}, duel.keys.data(), duel.values.data());
      for (int head = 0; head < shape.query_heads; ++head) {
        const auto sight =
            codes.attend(head, position, duel.queries.data() + head * shape.head_dim);
        EXPECT_LE(test::relative_error(duel.output.data() + head * shape.values(), sight.output),
                  5e-2)  // rows that meet codes are rounded to a byte
            << "head_dim " << shape.head_dim << " residual " << one.residual << " head " << head;
      }
    }
  }
}

// A prompt is attended to before anything is sealed: only the rounding to f16 shows.
TEST(AttendCoded, APromptSeesItselfUnsealed) {
  Duel<Full, Kivi<4>> duel({.query_heads = 4, .heads = 2, .head_dim = 64}, {}, {.residual = 0});
  duel.run({.tokens = 200, .last_of_prompt = true});
  EXPECT_LE(duel.worst, 2e-3);
  duel.run({});
  EXPECT_GT(duel.worst, 2e-3) << "the next step reads codes";
  EXPECT_LE(duel.worst, 0.3);
}

}  // namespace
}  // namespace kvast
