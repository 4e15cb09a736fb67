// SPDX-License-Identifier: Apache-2.0
// External storage: an engine that repeats the moves has the survivors in the slots it is told.
#include "kvast/storage/external.h"

#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

constexpr Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16};

/// An engine's memory of one head: which position lies in which slot.
struct Slots {
  std::vector<int> position;
  void repeat(std::span<const Move> moves, int live) {
    std::vector<bool> written(position.size(), false);
    for (const Move& move : moves) {
      ASSERT_FALSE(written[static_cast<std::size_t>(move.from)]) << "a slot is read after a write";
      ASSERT_LT(move.to, live);
      ASSERT_GE(move.from, live);
      position[static_cast<std::size_t>(move.to)] = position[static_cast<std::size_t>(move.from)];
      written[static_cast<std::size_t>(move.to)] = true;
    }
    position.resize(static_cast<std::size_t>(live));
  }
};

template <class Policy>
void expect_moves(Policy policy) {
  BlockPool pool;
  KVCache<Policy, External> cache(kShape, policy, {}, pool);
  test::Random random(4);
  std::vector<Slots> engine(4);  // layer * 2 + head
  std::size_t moved = 0;
  for (int step = 0; step < 200; ++step) {
    const int count = step % 20 == 0 ? 50 : random.between(1, 3);
    auto pass = cache.begin({.tokens = count, .last_of_prompt = step % 20 == 0});
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) {
        for (int token = 0; token < count; ++token)
          engine[static_cast<std::size_t>(layer * 2 + head)].position.push_back(cache.length() +
                                                                                token);
      }
      const auto keys = random.normals(static_cast<std::size_t>(count) * 32);
      pass->append(layer, std::span(keys));
      const std::size_t slots =
          std::max(engine[static_cast<std::size_t>(layer * 2)].position.size(),
                   engine[static_cast<std::size_t>(layer * 2 + 1)].position.size());
      std::vector<float> weights(static_cast<std::size_t>(count) * 4 * slots);
      for (float& weight : weights)
        weight = static_cast<float>(random.below(64)) / 64.0F / static_cast<float>(slots) * 2.0F;
      pass->observe(layer, {weights.data(), static_cast<std::int64_t>(4 * slots),
                            static_cast<std::int64_t>(slots)});
      pass->commit(layer);
    }
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) {
        Slots& mine = engine[static_cast<std::size_t>(layer * 2 + head)];
        moved += cache.moves(layer, head).size();
        mine.repeat(cache.moves(layer, head), cache.tokens(layer, head));
        ASSERT_EQ(mine.position, cache.slots(layer, head)) << "step " << step;
        std::vector<int> sorted = mine.position;
        std::sort(sorted.begin(), sorted.end());
        ASSERT_EQ(sorted, cache.kept(layer, head));
      }
    }
    ASSERT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
  }
  if constexpr (!std::is_same_v<Policy, Full>) {
    EXPECT_GT(moved, 0U);
  }
}

TEST(ExternalStorage, MovesLeaveTheSurvivorsInTheirSlots) {
  expect_moves(Full{});
  expect_moves(H2O{.heavy = 30, .recent = 20});
  expect_moves(StreamingLLM{.sinks = 3, .recent = 40});
  expect_moves(L2Norm{.tokens_kept = 40, .skip = {}, .when = When::full(5)});
  expect_moves(TOVA{.tokens_kept = 33});
  expect_moves(Corm{.window = 10, .recent = 5});
  expect_moves(SnapKV{.tokens_kept = 40, .window = 4});
}

TEST(ExternalStorage, TakesNoTensorsButNorms) {
  BlockPool pool;
  KVCache<H2O, External> cache(kShape, {}, {}, pool);
  KVCache<L2Norm, External> norms(kShape, {.skip = {}}, {}, pool);
  auto pass = cache.begin({});
  pass->append(0);
  float number = 0.0F;
  test::expect_refused([&] { pass->attend(0, &number, &number); }, {"External", "observe"});
  test::expect_refused([&] { cache.export_dense(0, &number, &number); }, {"External"});
  auto other = norms.begin({});
  test::expect_refused([&] { other->append(0); }, {"append: keys must not be null"});
  const std::vector<float> keys(32, NAN);
  test::expect_refused([&] { other->append(0, std::span(keys)); }, {"append: keys", "finite"});
}

// The engine's weights of earlier chunks are gone: a vote that needs them is refused, not wrong.
TEST(ExternalStorage, AVoteThatReachesIntoAnEarlierChunkIsRefused) {
  BlockPool pool;
  KVCache<SnapKV, External> cache(kShape, {.tokens_kept = 20, .window = 8}, {}, pool);
  const std::vector<float> weights(4 * 40 * 40, 0.01F);
  const auto run = [&](int tokens, bool last, bool more) {
    auto pass = cache.begin({.tokens = tokens, .last_of_prompt = last, .more_of_prompt = more});
    for (int layer = 0; layer < 2; ++layer) {
      pass->append(layer);
      pass->observe(layer, {weights.data(), 160, 40});
      pass->commit(layer);
    }
  };
  run(20, false, true);
  test::expect_refused([&] { run(7, true, false); }, {"last 8 queries", "this pass has 7"});
  EXPECT_EQ(cache.length(), 20);
  run(8, true, false);
  EXPECT_EQ(cache.tokens(1, 1), 20);
  run(1, false, false);  // a decode step is not a vote
  EXPECT_EQ(cache.tokens(1, 1), 21);
}

TEST(ExternalStorage, CostsOnlyItsRecords) {
  BlockPool pool;
  KVCache<H2O, External> cache(kShape, {}, {}, pool);
  for (int step = 0; step < 320; ++step) {
    auto pass = cache.begin({});
    const std::vector<float> weights(4 * 320, 0.0F);
    for (int layer = 0; layer < 2; ++layer) {
      pass->append(layer);
      pass->observe(layer, {weights.data(), 0, 320});
      pass->commit(layer);
    }
  }
  EXPECT_LT(cache.bytes_in_use(), 4U * (10 * 384 + 256)) << "position and mass: 8 bytes per token";
}

}  // namespace
}  // namespace kvast
