// SPDX-License-Identifier: Apache-2.0
// Positions::compacted: the cache rotates by the rank among live tokens, also after evictions.
#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

struct Turning {
  Pairing pairing = Pairing::halves;
  int width = 32;
  float scale = 1.0F;
};

template <class Policy, class Storage = Dense<float>>
void expect_equal(Policy policy, const Turning& turning, const std::vector<int>& passes,
                  AttendOptions options = {}, test::ReferenceRules rules = {}) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 32, .value_dim = 40};
  CacheOptions cache_options{.positions = Positions::compacted,
                             .rope = Rope::plain(turning.width, 10000.0, turning.pairing)};
  cache_options.rope.scale = turning.scale;
  test::ReferenceRope rope{.interleaved = turning.pairing == Pairing::interleaved,
                           .scale = static_cast<double>(turning.scale)};
  for (const float frequency : cache_options.rope.inverse_frequencies)
    rope.frequencies.push_back(static_cast<double>(frequency));
  rules.rope = &rope;
  Duel<Policy, Storage> duel(shape, policy, {}, cache_options);
  for (std::size_t at = 0; at < passes.size(); ++at)
    duel.run({.tokens = passes[at], .last_of_prompt = at == 0}, options, rules);
  EXPECT_LE(duel.worst, 1e-5) << "width " << turning.width << " scale " << turning.scale;
  EXPECT_LE(duel.worst_lse, 5e-5);
}

std::vector<int> steps(std::vector<int> first, int count) {
  first.insert(first.end(), static_cast<std::size_t>(count), 1);
  return first;
}

TEST(Compacted, WithoutEvictionItIsPlainRope) {
  for (const Pairing pairing : {Pairing::halves, Pairing::interleaved}) {
    for (const int width : {2, 8, 20, 32}) {
      for (const float scale : {1.0F, 1.25F, 0.5F})
        expect_equal(Full{}, {pairing, width, scale}, {70, 1, 1, 5, 33, 1});
    }
  }
}

TEST(Compacted, StreamingLLMCountsPlacesInTheCache) {
  for (const Pairing pairing : {Pairing::halves, Pairing::interleaved}) {
    expect_equal(StreamingLLM{.sinks = 4, .recent = 60}, {pairing}, steps({150}, 200));
    expect_equal(StreamingLLM{.sinks = 0, .recent = 33}, {pairing}, steps({10, 40, 3}, 100));
    expect_equal(StreamingLLM{.sinks = 40, .recent = 1}, {pairing, 16, 1.5F}, steps({30, 40}, 70));
  }
}

// Holes anywhere: each run of live slots has its own rank.
TEST(Compacted, PoliciesThatLeaveHoles) {
  expect_equal(H2O{.heavy = 20, .recent = 20}, {}, steps({100}, 150));
  expect_equal(H2O{.heavy = 30, .recent = 10}, {Pairing::interleaved, 12, 0.8F},
               steps({50, 20, 3, 7}, 150));
  expect_equal(SnapKV{.tokens_kept = 50, .window = 8}, {}, steps({150}, 60));
  expect_equal(TOVA{.tokens_kept = 40}, {}, steps({100}, 80));
}

TEST(Compacted, WithOptions) {
  const std::vector<float> sinks{0.5F, 1.0F, -2.0F, 0.0F, 3.0F, 1.0F};
  std::vector<float> bias(500);
  for (std::size_t at = 0; at < bias.size(); ++at) bias[at] = 0.01F * static_cast<float>(at % 100);
  const AttendOptions options{.scale = 0.2F,
                              .softcap = 5.0F,
                              .window = 50,
                              .sinks = sinks,
                              .bias = {.data = bias.data(), .positions = 500}};
  const test::ReferenceRules rules{.scale = static_cast<double>(0.2F),
                                   .softcap = 5.0,
                                   .window = 50,
                                   .sinks = sinks.data(),
                                   .bias = bias.data()};
  expect_equal(StreamingLLM{.sinks = 4, .recent = 60}, {}, steps({90}, 60), options, rules);
  expect_equal(H2O{.heavy = 20, .recent = 20}, {}, steps({90, 5}, 60), options, rules);
}

// Exported keys are rotated by their slot, so codes of a moving window do not depend on its base.
TEST(Compacted, CodedBlocksAttendLikeTheirDecodedKeys) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 32};
  const Rope rope = Rope::plain(32, 10000.0, Pairing::halves);
  BlockPool pool;
  const CacheOptions options{.positions = Positions::compacted, .rope = rope};
  KVCache<StreamingLLM, Kivi<4>> coded(shape, {.sinks = 4, .recent = 200}, {.residual = 32}, pool,
                                       options);
  KVCache<StreamingLLM, Dense<float>> dense(shape, {.sinks = 4, .recent = 200}, {}, pool, options);
  test::Random random(6);
  double difference = 0.0;
  double norm = 0.0;
  for (int step = 0; step < 260; ++step) {
    const int count = step == 0 ? 230 : 1;
    const auto size = [&](int width) { return static_cast<std::size_t>(count * width); };
    const auto keys = random.normals(size(64));
    const auto values = random.normals(size(64));
    const auto queries = random.normals(size(128));
    std::vector<float> one(size(128));
    std::vector<float> two(size(128));
    const auto run = [&](auto& cache, std::vector<float>& output) {
      auto pass = cache.begin({.tokens = count, .last_of_prompt = step == 0});
      pass->append(0, keys.data(), values.data());
      pass->attend(0, queries.data(), output.data());
      pass->commit(0);
    };
    run(coded, one);
    run(dense, two);
    for (std::size_t at = 0; step > 0 && at < one.size(); ++at) {
      difference += std::pow(static_cast<double>(one[at] - two[at]), 2);
      norm += std::pow(static_cast<double>(two[at]), 2);
    }
  }
  EXPECT_GT(coded.stats().sealed, 0);
  EXPECT_LE(std::sqrt(difference / norm), 0.12) << "4 bits cost about 0.08; a wrong turn costs 1";
  EXPECT_EQ(coded.kept(0, 1), dense.kept(0, 1));
}

// The paper's streams are millions of tokens long: tables follow the tokens kept, not the position.
TEST(Compacted, ManyPositionsCostNothing) {
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 32};
  CacheOptions options{.positions = Positions::compacted,
                       .rope = Rope::plain(32, 10000.0, Pairing::halves)};
  Duel<StreamingLLM, Dense<float>> duel(shape, {.sinks = 4, .recent = 28}, {}, options);
  test::ReferenceRope rope;
  for (const float frequency : options.rope.inverse_frequencies)
    rope.frequencies.push_back(static_cast<double>(frequency));
  const test::ReferenceRules rules{.rope = &rope};
  duel.run({.tokens = 40}, {}, rules);
  const std::vector<int> far{(1 << 30) - 3, (1 << 30) - 2};
  duel.run({.tokens = 2, .positions = far}, {}, rules);
  duel.run({}, {}, rules);
  EXPECT_LE(duel.worst, 1e-5);
}

}  // namespace
}  // namespace kvast
