// SPDX-License-Identifier: Apache-2.0
// Passes that are captured, and replayed without the host: on a device that does its work late.
// tests/gpu/graph_test.cu replays CUDA's own graphs.
#include <gtest/gtest.h>

#include "kvast/gpu/convert.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/streaming_llm.h"
#include "kvast/policy/tova.h"
#include "tests/simt/near_mean.h"
#include "tests/simt/queued_decoder.h"

namespace kvast {
namespace {

using namespace test::queued;

TEST(GpuReplay, ReservesAddUpUntilTheyAreSettled) {
  Decoder<Full, Kivi<4>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  for (int turn = 0; turn < 3; ++turn) {
    ASSERT_TRUE(decoder.cache.reserve(100));
    const Device::Work work = decoder.capture(1);
    for (int at = 0; at < 100; ++at) Device::replay(work);
  }
  EXPECT_EQ(decoder.cache.length(0), 1);
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.length(0), 301);
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(301));
}

/// Rounds of replays take from the pool what they need, not what could have come.
template <class Policy, class S>
void check_rounds(Policy policy, S storage, bool settles) {
  constexpr bool kAttends = Policy::needs.attention;
  constexpr int kRounds = 12;
  Decoder<Policy, S> decoder(policy, storage);
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 100, .last_of_prompt = true}, kAttends));
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}, kAttends));
  ASSERT_TRUE(Device::wait({}));
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_TRUE(decoder.cache.reserve(20));
    const Device::Work work = decoder.capture(1, kAttends);
    for (int at = 0; at < 20; ++at) Device::replay(work);
    ASSERT_TRUE(settles ? decoder.cache.settle() : Device::wait({}));
  }
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.length(0), 101 + 20 * kRounds);
  EXPECT_EQ(decoder.cache.counters().missing, 0);
  const std::size_t used = *decoder.cache.bytes_in_use();
  EXPECT_LE(decoder.pool().bytes_held(), 2 * used) << used << " bytes are in use";
}
TEST(GpuReplay, RoundsPromiseWhatTheyNeed) {
  for (const bool settles : {true, false}) {
    check_rounds(Full{}, Kivi<4>{.residual = 32}, settles);
    check_rounds(Full{}, Dense<half>{}, settles);
    check_rounds(H2O{.heavy = 20, .recent = 20}, Dense<half>{}, settles);
    check_rounds(H2O{.heavy = 20, .recent = 20}, Kivi<4>{.residual = 32}, settles);
  }
}

/// Graphs that bring each sequence its tokens, one before the other.
TEST(GpuReplay, SequencesTakeTurns) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(decoder.cache.reserve(64));
    for (const std::vector<int>& counts : {std::vector<int>{1, 0}, std::vector<int>{0, 1}}) {
      const Device::Work work = decoder.capture({.counts = counts});
      for (int at = 0; at < 64; ++at) Device::replay(work);
      ASSERT_TRUE(Device::wait({}));
    }
  }
  ASSERT_TRUE(decoder.cache.settle());
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(1 + 3 * 64));
}

/// A sequence that replays filled is not empty, although the host began none of its passes.
TEST(GpuReplay, SequencesThatReplaysFilledAreNotLoaded) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.clear(1));
  ASSERT_TRUE(decoder.cache.reserve(100));
  const Device::Work work = decoder.capture(1);
  for (int at = 0; at < 50; ++at) Device::replay(work);
  BlockPool host_pool;
  KVCache<Full, Dense<half>> host(kShape, {}, {}, host_pool);
  EXPECT_THROW((void)gpu::to_device(host, decoder.cache, 1), Error);
  for (int at = 0; at < 50; ++at) Device::replay(work);  // they were reserved
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.length(1), 100);
  ASSERT_EQ(decoder.cache.counters().missing, 0);
}

/// A sequence that is loaded between replays has room for what they bring, however it waits.
template <class S>
void check_load_between(S storage, int tokens, bool waits, int replays) {
  SCOPED_TRACE(tokens);
  Decoder<Full, S> decoder({}, storage);
  BlockPool host_pool;
  KVCache<Full, S> host(kShape, {}, storage, host_pool);
  {
    auto pass = host.begin({.tokens = tokens, .more_of_prompt = waits});
    ASSERT_TRUE(pass);
    const std::vector<float> numbers(static_cast<std::size_t>(tokens * 2 * 64), 0.5F);
    pass->append(0, numbers.data(), numbers.data());
    pass->commit(0);
  }
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.clear(1));
  ASSERT_TRUE(decoder.cache.reserve(100));
  const Device::Work work = decoder.capture(1);
  const Status status = gpu::to_device(host, decoder.cache, 1);
  ASSERT_TRUE(status) << status.message();
  for (int at = 0; at < replays; ++at) Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  ASSERT_EQ(decoder.cache.counters().missing, 0);
  EXPECT_EQ(*decoder.cache.tokens(1, 0, 0), tokens + replays);
}
TEST(GpuReplay, SequencesAreLoadedBetweenReplays) {
  check_load_between(Dense<half>{}, 1020, false, 100);
  check_load_between(Kivi<4>{.residual = 0}, 1020, false, 100);
  check_load_between(Kivi<4>{.residual = 0}, 1024, true, 1);
}

/// Loading learns which replays were done: rounds of both promise no more each time.
TEST(GpuReplay, RoundsOfLoadsPromiseWhatTheyNeed) {
  Decoder<StreamingLLM, Dense<half>> decoder({.sinks = 4, .recent = 40});
  BlockPool host_pool;
  KVCache<StreamingLLM, Dense<half>> host(kShape, {.sinks = 4, .recent = 40}, {}, host_pool);
  {
    auto pass = host.begin({.tokens = 20});
    ASSERT_TRUE(pass);
    const std::vector<float> numbers(20 * 2 * 64, 0.5F);
    pass->append(0, numbers.data(), numbers.data());
    pass->commit(0);
  }
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  std::size_t held = 0;
  for (int round = 0; round < 9; ++round) {
    ASSERT_TRUE(decoder.cache.reserve(100));
    const Device::Work work = decoder.capture(1);
    for (int at = 0; at < 100; ++at) Device::replay(work);
    ASSERT_TRUE(decoder.cache.clear(1));
    const Status status = gpu::to_device(host, decoder.cache, 1);
    ASSERT_TRUE(status) << status.message();
    if (round == 2) held = decoder.pool().bytes_held();
  }
  EXPECT_LE(decoder.pool().bytes_held(), held + held / 20);
  EXPECT_EQ(decoder.cache.counters().missing, 0);
}

/// What was reserved before clear() is not asked for after it.
TEST(GpuReplay, ClearForgetsReserves) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.reserve(20));
  const Device::Work work = decoder.capture(1);
  for (int at = 0; at < 15; ++at) Device::replay(work);
  ASSERT_TRUE(decoder.cache.clear());
  Device::Work again;
  Device::captured = &again;
  EXPECT_THROW((void)decoder.cache.begin(), Error);
  EXPECT_THROW((void)decoder.cache.clear(), Error);
  EXPECT_THROW((void)decoder.cache.settle(), Error);
  EXPECT_THROW((void)decoder.cache.reserve(1), Error);
  Device::captured = nullptr;
  EXPECT_TRUE(again.empty());
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 3}));
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(3));
}

/// Nothing is written beyond what there is, it is told, and the cache can be used again.
template <class Policy, class S>
void check_too_many(int tokens, bool attends) {
  Decoder<Policy, S> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = tokens}, attends));
  ASSERT_TRUE(decoder.cache.reserve(10));
  const Device::Work work = decoder.capture(tokens, attends);
  for (int at = 0; at < 400 / tokens; ++at) Device::replay(work);
  ASSERT_TRUE(Device::wait({}));
  EXPECT_EQ(decoder.cache.begin().status().code(), StatusCode::device_failed);
  EXPECT_GT(decoder.cache.counters().missing, 0);
  ASSERT_TRUE(decoder.cache.clear());
  for (const int blocks : decoder.cache.counters().in_use) ASSERT_EQ(blocks, 0);
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 60}, attends));
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(60));
}
TEST(GpuReplay, MoreThanReservedAreTold) {
  check_too_many<Full, Kivi<4>>(1, false);
  check_too_many<Full, Kivi<4>>(40, true);
  check_too_many<TOVA, Dense<half>>(1, true);
}

/// A captured pass brings its own counts, whatever ran between capture and replay.
TEST(GpuReplay, BringsItsOwnCounts) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.reserve(6));
  const Device::Work work = decoder.capture(3);
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 5}));
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.length(0), 9);
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(9));
}

/// What is captured has not happened: not even where it would have sealed.
TEST(GpuReplay, CapturesChangeNothing) {
  for (const bool settles : {false, true}) {
    Decoder<Full, Kivi<4>> decoder({}, {.residual = 16});
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 47}));
    ASSERT_TRUE(decoder.cache.reserve(1));
    (void)decoder.capture(1);
    if (settles) {
      ASSERT_TRUE(decoder.cache.settle());
    }
    EXPECT_EQ(decoder.cache.length(0), 47);
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .more_of_prompt = true}));
    ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(559));
  }
}

/// The device's steps are then more than the host's passes.
TEST(GpuReplay, TheHostGoesOnWithoutSettling) {
  for (const int replays : {1, 2, 3, 6}) {
    Decoder<Full, Dense<half>> decoder;
    ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
    ASSERT_TRUE(decoder.cache.reserve(replays));
    const Device::Work work = decoder.capture(1);
    for (int at = 0; at < replays; ++at) Device::replay(work);
    ASSERT_TRUE(Device::wait({}));  // its report is there
    for (int chunk = 0; chunk < replays + 3; ++chunk)
      ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .more_of_prompt = true}));
    ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(1 + replays + 512 * (replays + 3)));
  }
}

/// Captured work that is given up has not been done: real tokens stay, and nothing is torn.
TEST(GpuReplay, ACaptureThatIsGivenUpChangesNothing) {
  for (const bool attends : {false, true}) {
    Decoder<H2O, Dense<half>> decoder({.heavy = 100, .recent = 10});
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 40}, true));
    ASSERT_NO_FATAL_FAILURE(decoder.pass({}, true));
    ASSERT_TRUE(decoder.cache.reserve(10));
    {
      Device::Work work;
      Device::captured = &work;
      auto pass = decoder.cache.begin();
      ASSERT_TRUE(pass);
      ASSERT_NO_FATAL_FAILURE(decoder.append(*pass, attends));
      Device::captured = nullptr;
      EXPECT_THROW((void)pass->commit(), Error);  // the capture is over
    }
    ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(41));
    ASSERT_NO_FATAL_FAILURE(decoder.pass({}, true));
    ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(42));
  }
}

/// A handle of a pass that clear() ended is nobody's any more.
TEST(GpuReplay, OldHandlesEndNothing) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 40}));
  auto pass = [&] {
    auto old = decoder.cache.begin();
    EXPECT_TRUE(old && decoder.cache.clear());
    auto made = decoder.cache.begin({.tokens = 3});
    EXPECT_THROW((void)old->commit(), Error);
    return made;
  }();
  ASSERT_TRUE(pass);
  ASSERT_NO_FATAL_FAILURE(decoder.append(*pass, false));
  ASSERT_TRUE(pass->commit());
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(3));
}

/// A larger pass in between makes attend's scratch grow: what a captured one points to stays.
TEST(GpuReplay, LargerPassesLeaveACapturedOneItsMemory) {
  Decoder<Full, Dense<float>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}, true));
  ASSERT_TRUE(decoder.cache.reserve(20));
  const Device::Work work = decoder.capture(1, true);
  for (const int tokens : {16, 100, 2}) {
    Device::replay(work);
    ASSERT_TRUE(decoder.cache.settle());
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = tokens}, true));
    ASSERT_TRUE(decoder.cache.reserve(20));
  }
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(1 + 4 + 118));
}

/// A policy's saved weights have room for the lists there were at capture; beyond, it is told.
template <class Policy>
void check_lists_that_grew(Policy policy, int tokens) {
  Decoder<Policy, Dense<half>> decoder(policy);
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = tokens}, true));
  ASSERT_TRUE(decoder.cache.reserve(20));
  const Device::Work work = decoder.capture(tokens, true);
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(2 * tokens));
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 520}, true));
  ASSERT_TRUE(decoder.cache.reserve(20));
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.begin().status().code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache.clear());
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 3}, true));
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(3));
}
TEST(GpuReplay, ListsThatGrewSinceACaptureAreTold) {
  check_lists_that_grew(H2O{.heavy = 4000, .recent = 100}, 1);
  check_lists_that_grew(H2O{.heavy = 4000, .recent = 100}, 2);
}
/// So have the orders of tokens of a policy with a Head.
TEST(GpuReplay, OrdersHaveRoomForTheListsThereWere) {
  Decoder<test::NearMean, Dense<half>> decoder({.tokens_kept = 1500});
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.reserve(20));
  const Device::Work work = decoder.capture(1);
  for (int chunk = 0; chunk < 3; ++chunk)
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 520, .more_of_prompt = true}));
  ASSERT_TRUE(decoder.cache.reserve(20));
  EXPECT_EQ(*decoder.cache.tokens(0, 0, 0), 1500);
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.begin().status().code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache.clear());
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 3}));
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(3));
}

}  // namespace
}  // namespace kvast
