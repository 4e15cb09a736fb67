// SPDX-License-Identifier: Apache-2.0
// How tokens arrived does not matter: kept sets, codes and answers are those of one prompt.
#include <gtest/gtest.h>

#include "tests/laws/any_cache.h"

namespace kvast::test {
namespace {

constexpr int kTokens = 230;

/// kTokens tokens as a prompt in the given chunks.
void prompt(AnyCache& cache, const std::vector<int>& chunks) {
  int left = kTokens;
  for (const int chunk : chunks) {
    left -= chunk;
    (void)cache.run(chunk, left == 0 ? Phase::prompt : Phase::chunk);
  }
  ASSERT_EQ(left, 0);
}

const std::vector<std::vector<int>> kWays{
    {230}, {1, 229}, {229, 1}, {32, 32, 32, 32, 32, 32, 32, 6}, {100, 100, 30}, {226, 1, 1, 1, 1}};

TEST(Arrivals, KeptSetsOfAChunkedPromptAreThoseOfTheWhole) {
  for (const Cell& cell : all_cells()) {
    if (!cell.policy.ends_alike) continue;
    if (cell.policy.name.ends_with("SnapKV") && cell.storage == LawStorage::external)
      continue;  // see External tests
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto whole = cell.make(pool, serial());
    prompt(*whole, {230});
    const std::vector<float> next = whole->run(1, Phase::decode);
    for (const std::vector<int>& way : kWays) {
      auto chunked = cell.make(pool, serial());
      prompt(*chunked, way);
      const std::vector<float> got = chunked->run(1, Phase::decode);
      ASSERT_EQ(chunked->kept(), whole->kept()) << way.size() << " chunks";
      for (std::size_t at = 0; at < got.size(); ++at) ASSERT_NEAR(got[at], next[at], 2e-2);
    }
  }
}

TEST(Arrivals, TokensOneByOneAreTheTokensOfAPrompt) {
  for (const Cell& cell : all_cells()) {
    if (!cell.policy.ends_alike || cell.policy.only_at_prompts) continue;
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto whole = cell.make(pool, serial());
    auto single = cell.make(pool, serial());
    auto mixed = cell.make(pool, serial());
    (void)whole->run(kTokens, Phase::prompt);
    for (int token = 0; token < kTokens; ++token) (void)single->run(1, Phase::decode);
    (void)mixed->run(100, Phase::prompt);
    for (int token = 0; token < 26; ++token) (void)mixed->run(5, Phase::decode);
    EXPECT_EQ(single->kept(), whole->kept());
    EXPECT_EQ(mixed->kept(), whole->kept());
  }
}

// Without eviction codes are the same bits: prefill(T), prefill(T0) + decode, chunks.
TEST(Arrivals, WithoutEvictionStoredBitsAreTheSame) {
  for (const Cell& cell : all_cells()) {
    if (cell.policy.name != "Full" || cell.storage == LawStorage::external) continue;
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto whole = cell.make(pool, serial());
    prompt(*whole, {230});
    const std::vector<float> wanted = whole->exported();
    for (const std::vector<int>& way : kWays) {
      auto chunked = cell.make(pool, serial());
      prompt(*chunked, way);
      ASSERT_EQ(chunked->exported(), wanted);
      EXPECT_EQ(chunked->bytes(), whole->bytes());
    }
    // a part of the prompt would choose other channels
    if (cell.storage == LawStorage::think || cell.storage == LawStorage::think4) continue;
    for (const int first : {1, 31, 32, 33, 100, 229}) {
      auto decoded = cell.make(pool, serial());
      (void)decoded->run(first, Phase::prompt);
      while (decoded->length() < kTokens) (void)decoded->run(1, Phase::decode);
      ASSERT_EQ(decoded->exported(), wanted) << first;
      EXPECT_EQ(decoded->stats().sealed, whole->stats().sealed);
    }
    auto groups = cell.make(pool, serial());
    for (int turn = 0; turn < 23; ++turn) (void)groups->run(10, Phase::decode);
    EXPECT_EQ(groups->exported(), wanted);
  }
}

// After SnapKV's choice at the prompt's end: the same survivors, sealed in the same order.
TEST(Arrivals, SnapKVSealsTheSameBitsFromChunks) {
  for (const Cell& cell : all_cells()) {
    if (cell.policy.name != "SnapKV" || cell.storage == LawStorage::external) continue;
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto whole = cell.make(pool, serial());
    prompt(*whole, {230});
    for (const std::vector<int>& way : kWays) {
      auto chunked = cell.make(pool, serial());
      prompt(*chunked, way);
      ASSERT_EQ(chunked->exported(), whole->exported());
      ASSERT_EQ(chunked->stats().sealed, whole->stats().sealed);
    }
  }
}

// The policy does not care who computes the weights: kept sets with the engine's own kernel.
TEST(Arrivals, ExternalKeepsTheSetsOfAttend) {
  for (Cell cell : cells_with(LawStorage::external)) {
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto two = cell.make(pool, serial());
    cell.storage = LawStorage::f32;
    auto one = cell.make(pool, serial());
    for (const int tokens : {150, 1, 1, 1, 6, 1, 1}) {
      const Phase phase = tokens == 150 ? Phase::prompt : Phase::decode;
      (void)one->run(tokens, phase);
      (void)two->run(tokens, phase);
      ASSERT_EQ(one->kept(), two->kept());
    }
    for (int step = 0; step < 60; ++step) {
      (void)one->run(1, Phase::decode);
      (void)two->run(1, Phase::decode);
      ASSERT_EQ(one->kept(), two->kept()) << "step " << step;
    }
  }
}

TEST(Arrivals, ASecondPromptIsChosenFromAgain) {
  for (const Cell& cell : all_cells()) {
    if (cell.policy.name != "SnapKV") continue;
    SCOPED_TRACE(cell.name());
    BlockPool pool;
    auto cache = cell.make(pool, serial());
    (void)cache->run(150, Phase::prompt);
    EXPECT_EQ(cache->tokens(0, 0), 64);
    for (int step = 0; step < 20; ++step) (void)cache->run(1, Phase::decode);
    EXPECT_EQ(cache->tokens(0, 0), 84) << "what is generated stays";
    (void)cache->run(40, Phase::prompt);
    EXPECT_EQ(cache->tokens(1, 1), 64);
    EXPECT_EQ(cache->length(), 210);
  }
}

}  // namespace
}  // namespace kvast::test
