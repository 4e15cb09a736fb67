// SPDX-License-Identifier: Apache-2.0
// ThinK: attention is that over keys which lost their weakest channels once they were sealed.
#include "kvast/storage/channels.h"

#include <gtest/gtest.h>

#include "tests/storage/pruned_case.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

template <class Policy, class Inner>
using Beside = test::BesidePruned<Policy, Inner>;
using Setting = test::PrunedSetting;

std::vector<Setting> settings() {
  std::vector<Setting> all{{}, {.prune = 0.34F}, {.recent = 0}, {.window = 500}};
  all.push_back({.pairs = ChannelPairs::halves});
  all.push_back({.pairs = ChannelPairs::interleaved});
  all.push_back({.rotates = true});
  all.push_back({.pairs = ChannelPairs::halves, .rotates = true});
  all.push_back({.shape = {.query_heads = 2, .heads = 2, .head_dim = 128}, .prune = 0.6F});
  all.push_back({.shape = {.query_heads = 8, .heads = 1, .head_dim = 16}});
  return all;
}

template <class Policy, class Inner = Dense<float>>
double worst_of(const Setting& setting, Policy policy, Inner inner = {}, bool over_stored = false) {
  Beside<Policy, Inner> beside(setting, policy, inner);
  beside.over_stored = over_stored;
  beside.run(5, false);  // before any prompt
  beside.run(150, true);
  for (int step = 0; step < 45; ++step) beside.run(1, false);
  beside.run(40, false);
  beside.run(60, true);  // the choice stands
  for (int step = 0; step < 20; ++step) beside.run(1, false);
  EXPECT_FALSE(beside.dropped(0).empty());
  return beside.worst;
}

TEST(ThinK, AttendsOverWhatIsLeft) {
  for (const Setting& setting : settings()) EXPECT_LE(worst_of(setting, Full{}), 1e-5);
}

TEST(ThinK, AfterEviction) {
  for (const Setting& setting : settings()) {
    EXPECT_LE(worst_of(setting, H2O{.heavy = 60, .recent = 20}), 1e-5);
    EXPECT_LE(worst_of(setting, SnapKV{.tokens_kept = 80, .window = 8}), 1e-5);
  }
}

TEST(ThinK, ChunksOfAPromptChooseAsTheWhole) {
  for (const Setting& setting : settings()) {
    Beside<Full, Dense<float>> beside(setting, {}, {});
    beside.run(100, false, true);
    beside.run(7, false, true);
    beside.run(3, true);
    for (int step = 0; step < 40; ++step) beside.run(1, false);
    EXPECT_LE(beside.worst, 1e-5);
    EXPECT_FALSE(beside.dropped(0).empty());
  }
}

TEST(ThinK, NothingIsPrunedBeforeAPromptEnds) {
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 32};
  BlockPool pool;
  KVCache<Full, ThinK<Dense<half>>> pruned(shape, {}, {{}, 0.5F}, pool);
  KVCache<Full, Dense<half>> whole(shape, {}, {}, pool);
  test::Random random(1);
  const auto keys = random.normals(200 * 32);
  const auto queries = random.normals(200 * 64);
  std::vector<float> output(200 * 64);
  const auto run = [&](auto& cache, const PassOptions& options) {
    auto pass = cache.begin(options);
    pass->append(0, keys.data(), keys.data());
    pass->attend(0, queries.data(), output.data());
    pass->commit(0);
  };
  run(pruned, {.tokens = 200});
  run(whole, {.tokens = 200});
  EXPECT_EQ(pruned.bytes_in_use(), whole.bytes_in_use());
  run(pruned, {.tokens = 1, .last_of_prompt = true});
  // five blocks of 32 keys, half of whose channels are gone, and a list of pointers to them
  run(whole, {.tokens = 1});
  EXPECT_EQ(whole.bytes_in_use() - pruned.bytes_in_use(), 5U * 32 * 16 * 2 - 64);
}

TEST(ThinK, ExportsZerosWhereChannelsWere) {
  Beside<Full, Dense<float>> beside({}, {}, {});
  beside.run(100, true);
  std::vector<float> keys(100 * 2 * 48);
  beside.cache().export_dense(0, std::span(keys), OutputView());
  for (int token = 0; token < 100; ++token) {
    for (int head = 0; head < 2; ++head) {
      const auto& kept = beside.reference().kept(head)[static_cast<std::size_t>(token)];
      for (int dim = 0; dim < 48; ++dim)
        ASSERT_EQ(
            static_cast<double>(keys[static_cast<std::size_t>((token * 2 + head) * 48 + dim)]),
            kept.key[static_cast<std::size_t>(dim)]);
      EXPECT_EQ(beside.is_sealed(head, token), token < 64);
    }
  }
  EXPECT_EQ(beside.dropped(0).size(), 24U);
  EXPECT_NE(beside.dropped(0), beside.dropped(1));
}

/// With all channels, or before codes, nothing is lost that the format does not lose.
TEST(ThinK, AllChannelsAreTheFormatItself) {
  Setting setting;
  setting.prune = 0.0F;
  Beside<Full, Dense<float>> beside(setting, {}, {});
  for (const int tokens : {150, 1, 1, 40}) beside.run(tokens, tokens == 150);
  EXPECT_LE(beside.worst, 1e-5);
}

TEST(ThinK, OnCodes) {
  const Setting even{.loudness = 0.25};  // a row of queries is rounded with one step for all
  EXPECT_LE(worst_of(even, H2O{.heavy = 60, .recent = 20}, Int8{}, true), 2e-3);
  EXPECT_LE(worst_of(even, Full{}, Kivi<8>{.residual = 16}, true), 2e-3);
  EXPECT_LE(worst_of(even, Full{}, Kivi<4>{.residual = 40}, true), 5e-2);
  EXPECT_LE(worst_of(even, Full{}, Kivi<8>{.residual = 16}), 0.08) << "beside keys without codes";
}

TEST(ThinK, ForksAndDroppedPassesKeepTheChoice) {
  const Shape shape{.query_heads = 2, .heads = 2, .head_dim = 32};
  BlockPool pool;
  using Cache = KVCache<Full, ThinK<Int8>>;
  Cache cache(shape, {}, {{}, 0.5F, 8}, pool);
  test::Random random(7);
  const auto numbers = random.normals(120 * 64);
  const auto run = [&](Cache& one, int tokens, bool prompt, bool commits) {
    std::vector<float> output(static_cast<std::size_t>(tokens) * 64);
    auto pass = one.begin({.tokens = tokens, .last_of_prompt = prompt});
    const float* from = numbers.data() + one.length() % 50 * 64;
    pass->append(0, from, from);
    pass->attend(0, from, output.data());
    if (commits) pass->commit(0);
    return output;
  };
  (void)run(cache, 60, true, false);
  (void)run(cache, 60, true, true);
  auto copy = cache.fork();
  ASSERT_TRUE(copy);
  (void)run(*copy, 30, true, false);
  for (const int tokens : {1, 1, 40, 1})
    EXPECT_EQ(run(cache, tokens, false, true), run(*copy, tokens, false, true));
  cache.clear();
  BlockPool fresh_pool;
  Cache fresh(shape, {}, {{}, 0.5F, 8}, fresh_pool);
  for (const int tokens : {70, 1, 33})
    EXPECT_EQ(run(cache, tokens, tokens == 70, true), run(fresh, tokens, tokens == 70, true));
}

TEST(ThinK, ComposesWithALowRankOfValues) {
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 32};
  BlockPool pool;
  auto calibration = std::make_shared<Calibration>();
  calibration->shapes = {shape};
  Directions axes{.heads = 1, .dim = 32, .energies = {}, .vectors = {}};
  for (int row = 0; row < 32; ++row) {
    axes.energies.push_back(1.0);
    for (int at = 0; at < 32; ++at) axes.vectors.push_back(row == at ? 1.0F : 0.0F);
  }
  calibration->layers = {{axes, axes}};
  KVCache<Full, ThinK<EigenLowRank<Dense<half>>>> cache(
      shape, {}, {{{}, calibration, {{32, 16}}, false}, 0.5F}, pool);
  const std::vector<float> numbers(100 * 64, 1.0F);
  std::vector<float> output(100 * 64);
  auto pass = cache.begin({.tokens = 100, .last_of_prompt = true});
  pass->append(0, numbers.data(), numbers.data());
  pass->attend(0, numbers.data(), output.data());
  pass->commit(0);
  EXPECT_EQ(output[15], 1.0F);
  EXPECT_EQ(output[16], 0.0F);
}

TEST(ThinK, MisuseIsRefusedByName) {
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 32};
  BlockPool pool;
  const auto make = [&](auto storage, const CacheOptions& options = {}) {
    KVCache<Full, decltype(storage)>(shape, {}, storage, pool, options);
  };
  using Storage = ThinK<Dense<half>>;
  expect_refused([&] { make(Storage{{}, 1.0F}); }, {"ThinK.prune is 1", "[0, 1)"});
  expect_refused([&] { make(Storage{{}, NAN}); }, {"ThinK.prune is nan"});
  expect_refused([&] { make(Storage{{}, 0.5F, -1}); }, {"ThinK.recent is -1"});
  expect_refused([&] { make(Storage{{}, 0.5F, 1, 0}); }, {"ThinK.window is 0"});
  expect_refused(
      [&] {
        make(Storage{{}, 0.5F, 1, 1, static_cast<ChannelPairs>(3)});
      },
      {"ThinK.pairs is 3"});
  expect_refused([&] { make(ThinK<External>{}); }, {"channels", "keep keys"});
  expect_refused([&] { make(ThinK<Rotated<Int4>>{}); }, {"channels", "basis"});
  expect_refused(
      [&] {
        make(Storage{},
             {.positions = Positions::compacted, .rope = Rope::plain(32, 1e4, Pairing::halves)});
      },
      {"channels", "compacted"});
  KVCache<H2O, Storage> cache(shape, {}, {}, pool);
  const std::vector<float> numbers(64, 1.0F);
  auto pass = cache.begin({.tokens = 1, .last_of_prompt = true});
  pass->append(0, numbers.data(), numbers.data());
  expect_refused(
      [&] {
        pass->observe(0, Weights{numbers.data(), 64, 32});
      },
      {"observe", "channels", "only attend"});
  KVCache<Full, Storage> plain(shape, {}, {}, pool);
  auto other = plain.begin({.tokens = 1, .last_of_prompt = true});
  other->append(0, numbers.data(), numbers.data());
  expect_refused([&] { other->commit(0); }, {"commit", "attend"});
}

}  // namespace
}  // namespace kvast
