// SPDX-License-Identifier: Apache-2.0
// Options of attention go by position, not by slot: a window and a bias over the same tokens in
// other slots change nothing but rounding.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/laws/cells.h"

namespace kvast::test {
namespace {

/// Drops nothing, but may be scrambled.
struct KeepAll {
  static constexpr Needs needs{};
  struct State {};
  float rank(Token, State) const { return kPin; }
};
using Cache = KVCache<Scrambled<KeepAll>, AnyStorage>;

/// One pass; its outputs.
std::vector<float> run(Cache& cache, int tokens, const AttendOptions& options) {
  const Shape& shape = cache.shape(0);
  std::vector<int> positions(static_cast<std::size_t>(tokens));
  std::iota(positions.begin(), positions.end(), cache.length());
  const auto keys = tensor(Kind::key, 0, positions, shape.heads, shape.head_dim);
  const auto values = tensor(Kind::value, 0, positions, shape.heads, shape.values());
  const auto queries = tensor(Kind::query, 0, positions, shape.query_heads, shape.head_dim);
  std::vector<float> outputs(positions.size() *
                             static_cast<std::size_t>(shape.query_heads * shape.values()));
  auto pass = cache.begin({.tokens = tokens});
  pass->append(0, std::span(keys), std::span(values));
  pass->attend(0, std::span(queries), std::span(outputs), options);
  pass->commit(0);
  return outputs;
}

void expect_same_attention(LawStorage storage, int group) {
  const Shape shape{.query_heads = 2 * group, .heads = 2, .head_dim = 16, .value_dim = 40};
  std::vector<float> bias(200);
  for (std::size_t at = 0; at < bias.size(); ++at) bias[at] = 0.05F * static_cast<float>(at % 17);
  BlockPool pool;
  Cache one(shape, {{}, Scramble::one_way}, law_storage(storage, shape), pool);
  Cache other(shape, {{}, Scramble::other_way}, law_storage(storage, shape), pool);
  for (Cache* cache : {&one, &other}) {
    (void)run(*cache, kFirstScrambled, {});
    (void)run(*cache, kSecondScrambled, {});
  }
  ASSERT_EQ(one.kept(0, 1), other.kept(0, 1));
  ASSERT_NE(one.slots(0, 1), other.slots(0, 1)) << "the slots must differ for this to test";
  for (const int tokens : {1, 1, 5, 1}) {
    // some of the scrambled tokens are in sight
    const AttendOptions options{.window = 40, .bias = {.data = bias.data(), .positions = 200}};
    const std::vector<float> here = run(one, tokens, options);
    const std::vector<float> there = run(other, tokens, options);
    for (std::size_t at = 0; at < here.size(); ++at) ASSERT_NEAR(here[at], there[at], 2e-6);
  }
}

TEST(PermutedAttention, AWindowAndABiasGoByPosition) {
  for (const LawStorage storage : {LawStorage::f32, LawStorage::f16, LawStorage::kivi4}) {
    for (const int group : kLawGroups) {
      SCOPED_TRACE("storage " + std::to_string(static_cast<int>(storage)) + ", GQA " +
                   std::to_string(group));
      expect_same_attention(storage, group);
    }
  }
}

}  // namespace
}  // namespace kvast::test
