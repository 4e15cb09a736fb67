// SPDX-License-Identifier: Apache-2.0
// ByteBudget: a cache with the tokens that it allows stays within its bytes, and with many more
// it would not.
#include "kvast/host/byte_budget.h"

#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/calibrate/made_up.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr int kPrompt = 700;
const Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 32, .value_dim = 48};

/// Most bytes after any commit of a prompt and 150 decode steps, of all layers.
template <class Policy>
std::size_t most_bytes(const Policy& policy, const AnyStorage& storage, bool grows) {
  BlockPool pool;
  KVCache<Policy, AnyStorage> cache(kShape, policy, storage, pool);
  test::Random random(5);
  const auto keys = random.normals(kPrompt * 2 * 32);
  const auto values = random.normals(kPrompt * 2 * 48);
  const auto queries = random.normals(kPrompt * 4 * 32, 2.0);
  std::vector<float> output(kPrompt * 4 * 48);
  std::size_t most = 0;
  const auto run = [&](int tokens, bool prompt) {
    auto pass = cache.begin({.tokens = tokens, .last_of_prompt = prompt});
    const int at = cache.length() % (kPrompt - tokens + 1);
    for (int layer = 0; layer < 2; ++layer) {
      pass->append(layer, keys.data() + at * 64, values.data() + at * 96);
      pass->attend(layer, queries.data() + at * 128, output.data());
      pass->commit(layer);
    }
    most = std::max(most, cache.bytes_in_use());
  };
  run(kPrompt, true);
  for (int step = 0; step < (grows ? 0 : 150); ++step) run(step % 20 == 7 ? 9 : 1, false);
  if (!grows) run(100, true);
  return most;
}

struct Named {
  const char* name;
  AnyStorage storage;
};
std::vector<Named> storages() {
  auto calibration = std::make_shared<Calibration>(test::random_calibration(kShape));
  return {{"f16", Dense<half>{}},
          {"f32", Dense<float>{}},
          {"int8", Int8{}},
          {"kivi4", Kivi<4>{.residual = 40, .keep = {.tokens = 5}}},
          {"kivi2 but layer 1", Kivi<2>{.residual = 16, .keep = {.layers = LayerSet{}.add(1)}}},
          {"low rank", EigenLowRank<Dense<half>>{{}, calibration, {{16, 24}, {8, 48}}}},
          {"low rank x 4 bit",
           EigenLowRank<Kivi<4>>{{.residual = 16}, calibration, {{16, 24}, {8, 8}}}},
          {"think", ThinK<Dense<half>>{{}, 0.5F, 20}}};
}

/// `with(tokens)` is the policy with that budget; `used`: at least so much of the bytes.
template <class With>
void expect_within(const char* policy_name, With&& with, bool grows = false, double used = 0.6) {
  for (const Named& named : storages()) {
    for (const std::size_t total : {90'000U, 200'000U, 400'000U}) {
      SCOPED_TRACE(std::string(policy_name) + " on " + named.name + " in " + std::to_string(total));
      const ByteBudget budget{.total = total, .longest_prompt = kPrompt};
      const auto tokens = tokens_within(budget, kShape, with(64), named.storage);
      ASSERT_EQ(tokens.size(), 2U);
      ASSERT_EQ(tokens[0], tokens[1]);
      if (tokens[0] < 24) continue;
      const std::size_t most = most_bytes(with(tokens[0]), named.storage, grows);
      EXPECT_LE(most, total) << tokens[0] << " tokens";
      if (tokens[0] > kPrompt) continue;
      EXPECT_GE(static_cast<double>(most), used * static_cast<double>(total))
          << tokens[0] << " tokens";
    }
  }
}

TEST(ByteBudget, Holds) {
  expect_within("H2O", [](int tokens) { return H2O{.heavy = tokens - 12, .recent = 12}; });
  expect_within("StreamingLLM",
                [](int tokens) { return StreamingLLM{.sinks = 4, .recent = tokens - 4}; });
  expect_within("TOVA", [](int tokens) { return TOVA{.tokens_kept = tokens}; });
  expect_within("Random", [](int tokens) { return kvast::Random{.tokens_kept = tokens}; });
}

TEST(ByteBudget, HoldsAtThePromptsEnd) {
  expect_within(
      "SnapKV", [](int tokens) { return SnapKV{.tokens_kept = tokens, .window = 8}; }, true);
}

TEST(ByteBudget, HoldsWhereHeadsShareABudget) {
  expect_within(
      "AdaHeads<SnapKV>",
      [](int tokens) {
        return AdaHeads<SnapKV>{{.tokens_kept = tokens, .window = 8}, 0.2F};
      },
      true, 0.3);
}

TEST(ByteBudget, ADenseCacheIsCountedToTheByte) {
  for (const int tokens : {2, 31, 32, 33, 64, 200}) {
    const StreamingLLM policy{.sinks = 1, .recent = tokens - 1};
    const std::size_t bytes = most_bytes(policy, Dense<half>{}, false);
    const ByteBudget exact{.total = bytes, .longest_prompt = kPrompt};
    const int allowed = tokens_within(exact, kShape, policy, Dense<half>{})[0];
    EXPECT_EQ(allowed, (tokens + 31) / 32 * 32) << "what the blocks hold";
    const ByteBudget less{.total = bytes - 1, .longest_prompt = kPrompt};
    EXPECT_EQ(tokens_within(less, kShape, policy, Dense<half>{})[0], allowed - 32);
  }
}

TEST(ByteBudget, LayersHaveTheirOwn) {
  auto calibration = std::make_shared<Calibration>(test::random_calibration(kShape));
  const EigenLowRank<Dense<half>> storage{{}, calibration, {{32, 48}, {8, 8}}};
  const StreamingLLM policy{};
  const ByteBudget each{.per_layer = 60'000, .longest_prompt = kPrompt};
  const auto tokens = tokens_within(each, kShape, policy, storage);
  EXPECT_GT(tokens[1], 3 * tokens[0]);
  const ByteBudget both{.per_layer = 60'000, .total = 1'000'000, .longest_prompt = kPrompt};
  EXPECT_EQ(tokens_within(both, kShape, policy, storage)[1], tokens[0]) << "the same in all";
  EXPECT_EQ(tokens_within(each, kShape, policy, storage, 50)[1], 50) << "at most";
  // a policy's state counts
  EXPECT_LT(tokens_within(each, kShape, Scissorhands{}, storage)[1], tokens[1]);
}

TEST(ByteBudget, TooLittleIsNoTokenAndNoLimitIsRefused) {
  EXPECT_EQ(tokens_within({.total = 100}, kShape, H2O{}, Dense<half>{})[0], 0);
  expect_refused([&] { (void)tokens_within({}, kShape, H2O{}, Dense<half>{}); },
                 {"ByteBudget", "neither per_layer nor total"});
  expect_refused(
      [&] { (void)tokens_within({.total = 1, .longest_prompt = 0}, kShape, H2O{}, Dense<half>{}); },
      {"longest_prompt is 0"});
  expect_refused([&] { (void)tokens_within({.total = 1}, kShape, H2O{}, Dense<half>{}, -1); },
                 {"most is -1"});
}

}  // namespace
}  // namespace kvast
