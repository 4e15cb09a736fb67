// SPDX-License-Identifier: Apache-2.0
// Kivi<4>: what is sealed when, that survivors are encoded once, and how sparse blocks are merged.
#include "kvast/storage/kivi.h"

#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

constexpr Shape kShape{.query_heads = 4, .heads = 2, .head_dim = 128};

/// Bytes of payload of one coded and of one dense block of kShape.
constexpr std::size_t kCoded = 2 * 128 * 20;
constexpr std::size_t kDense = 2 * 128 * 64;
/// More than the records and lists of one block take.
constexpr std::size_t kSlack = 512;

TEST(Kivi4, TheOldestAreSealedAndTheResidualWaits) {
  for (const int residual : {0, 1, 32, 100, 128}) {
    Duel<Full, Kivi<4>> duel(kShape, {}, {.residual = residual});
    for (const int tokens : {1, 30, 1, 1, 31, 1, 100, 1, 1, 63, 1, 1, 1}) {
      duel.run({.tokens = tokens}, {}, {}, 0);
      const int length = duel.cache().length();
      const int sealed = length > residual ? 32 * ((length - residual) / 32) : 0;
      ASSERT_EQ(duel.cache().stats().sealed, 2 * sealed) << length << " tokens, " << residual;
      const auto coded = static_cast<std::size_t>(2 * sealed / 32);
      const auto dense = static_cast<std::size_t>(2 * ((length - sealed + 31) / 32));
      ASSERT_GE(duel.cache().bytes_in_use(), coded * kCoded + dense * kDense);
      ASSERT_LT(duel.cache().bytes_in_use(),
                coded * (kCoded + kSlack) + dense * (kDense + kSlack) + 1024);
    }
    EXPECT_EQ(duel.cache().stats().repacked, 0);
  }
}

TEST(Kivi4, NothingIsSealedBeforeThePromptEnds) {
  Duel<Full, Kivi<4>> duel(kShape, {}, {.residual = 32});
  for (int chunk = 0; chunk < 3; ++chunk) {
    duel.run({.tokens = 100, .more_of_prompt = true}, {}, {}, 0);
    EXPECT_EQ(duel.cache().stats().sealed, 0);
  }
  duel.run({.tokens = 10, .last_of_prompt = true}, {}, {}, 0);
  EXPECT_EQ(duel.cache().stats().sealed, 2 * 256);
}

TEST(Kivi4, UnderSnapKVOnlySurvivorsAreEncodedEachOnce) {
  Duel<SnapKV, Kivi<4>> duel(kShape, {.tokens_kept = 200, .window = 16}, {.residual = 32});
  duel.run({.tokens = 400, .more_of_prompt = true}, {}, {}, 0);
  duel.run({.tokens = 400, .last_of_prompt = true}, {}, {}, 0);
  EXPECT_EQ(duel.cache().tokens(0, 0), 200);
  EXPECT_EQ(duel.cache().stats().sealed, 2 * 160) << "32 * floor((200 - 32) / 32) per head";
  EXPECT_EQ(duel.cache().stats().evicted, 2 * 600);
  for (int step = 0; step < 24; ++step) duel.run({}, {}, {}, 0);
  EXPECT_EQ(duel.cache().stats().sealed, 2 * 192) << "224 live tokens";
  EXPECT_EQ(duel.cache().stats().repacked, 0);
}

/// The oldest tokens are those in codes: they decode to a grid, the newest to what arrived.
TEST(Kivi4, TheResidualIsExactToHalf) {
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 64};
  Duel<Full, Kivi<4>> duel(shape, {}, {.residual = 40});
  duel.rounds_to_half = true;
  duel.run({.tokens = 140}, {}, {}, 0);
  std::vector<float> keys(140 * 64);
  std::vector<float> values(140 * 64);
  duel.cache().export_dense(0, std::span(keys), std::span(values));
  int wrong = 0;
  for (std::size_t at = 96 * 64; at < keys.size(); ++at)
    wrong += keys[at] != duel.keys[at] || values[at] != duel.values[at] ? 1 : 0;
  EXPECT_EQ(wrong, 0) << "the newest 44 tokens wait";
  // a key group is one channel of 32 tokens: its error is at most half a step of its own range
  for (std::size_t block = 0; block < 3; ++block) {
    for (std::size_t dim = 0; dim < 64; ++dim) {
      float low = INFINITY;
      float high = -INFINITY;
      for (std::size_t token = block * 32; token < block * 32 + 32; ++token) {
        low = std::min(low, duel.keys[token * 64 + dim]);
        high = std::max(high, duel.keys[token * 64 + dim]);
      }
      for (std::size_t token = block * 32; token < block * 32 + 32; ++token) {
        ASSERT_NEAR(keys[token * 64 + dim], duel.keys[token * 64 + dim],
                    (high - low) / 30.0F * 1.01F + 0.003F);
      }
    }
  }
}

/// Coded slots per head, from the bytes: dense blocks are known from the live tokens.
template <class Cache>
void expect_packed(const Cache& cache, int budget, int residual) {
  const auto live = static_cast<std::size_t>(budget);
  const std::size_t coded = (live * 4 / 3 + 31) / 32 + 1;  // 4/3 of the live ones and a block
  const std::size_t dense = static_cast<std::size_t>(residual) / 32 + 2;
  ASSERT_LE(cache.bytes_in_use(), 2 * (coded * (kCoded + kSlack) + dense * (kDense + kSlack)));
}

TEST(Kivi4, SparseBlocksAreMerged) {
  Duel<H2O, Kivi<4>> duel(kShape, {.heavy = 400, .recent = 112, .by_lifetime = true},
                          {.residual = 64});
  duel.run({.tokens = 600, .last_of_prompt = true}, {}, {}, 0);
  for (int step = 0; step < 2000; ++step) {
    duel.run({}, {}, {}, 0);
    expect_packed(duel.cache(), 512, 64);
    if (HasFatalFailure()) return;
  }
  const Stats stats = duel.cache().stats();
  EXPECT_GT(stats.repacked, 0) << "the history must reach what it tests";
  EXPECT_LE(stats.repacked, stats.appended) << "on average at most once per token";
  EXPECT_EQ(duel.cache().tokens(0, 0), 512);
}

/// Keeps what stands in a list of residues: evictions all over, the same in every head.
struct Thin {
  int modulus = 1;
  int recent = 64;
  static constexpr Needs needs{};
  struct State {};
  float rank(Token token, State) const {
    return token.age < recent || token.position % modulus == 0 ? kPin : kDrop;
  }
};

// Value rows move as they are; keys are encoded again, which may cost a step of the new range.
TEST(Kivi4, MergedBlocksDecodeToNearlyTheSame) {
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 64};
  Duel<Thin, Kivi<4>> duel(shape, {.modulus = 5}, {.residual = 32});
  Duel<Full, Kivi<4>> all(shape, {}, {.residual = 32});
  for (int pass = 0; pass < 20; ++pass) {
    duel.run({.tokens = 32}, {}, {}, 0);
    all.run({.tokens = 32}, {}, {}, 0);
  }
  EXPECT_GT(duel.cache().stats().repacked, 0);
  const std::vector<int> kept = duel.cache().kept(0, 0);
  std::vector<float> keys(kept.size() * 64), values(kept.size() * 64);
  std::vector<float> all_keys(640 * 64), all_values(640 * 64);
  duel.cache().export_dense(0, std::span(keys), std::span(values));
  all.cache().export_dense(0, std::span(all_keys), std::span(all_values));
  double error = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < kept.size(); ++at) {
    if (kept[at] >= 576) break;  // sealed in both
    for (std::size_t dim = 0; dim < 64; ++dim) {
      const std::size_t there = static_cast<std::size_t>(kept[at]) * 64 + dim;
      ASSERT_EQ(values[at * 64 + dim], all_values[there]) << "value codes move as they are";
      const double arrived = duel.reference().kept(0)[at].key[dim];
      error += std::pow(static_cast<double>(keys[at * 64 + dim]) - arrived, 2);
      norm += arrived * arrived;
    }
  }
  EXPECT_LE(error / norm, 0.0153) << "at most 2.5 times the 0.00612 of one encoding";
}

TEST(Kivi4, SettingsAreChecked) {
  BlockPool pool;
  using Cache = KVCache<Full, Kivi<4>>;
  EXPECT_THROW(Cache(kShape, {}, {.residual = -1}, pool), Error);
  EXPECT_THROW(Cache(kShape, {}, {.residual = 2000000}, pool), Error);
}

}  // namespace
}  // namespace kvast
