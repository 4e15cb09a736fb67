// SPDX-License-Identifier: Apache-2.0
// What the host promises while the device's reports are late.
#include <gtest/gtest.h>

#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/queued_decoder.h"

namespace kvast {
namespace {

using namespace test::queued;

/// A pass that seals what several chunks left: the host's report is of before it.
TEST(GpuLateReports, ChunksThatAreSealedLater) {
  for (const auto& [passes, tokens] : {std::pair{3, 512}, std::pair{40, 1}}) {
    Decoder<Full, Kivi<4>> decoder({}, {.residual = 0});
    for (int chunk = 0; chunk < 4; ++chunk)
      ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .more_of_prompt = true}));
    ASSERT_TRUE(Device::wait({}));
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .last_of_prompt = true}));
    for (int at = 0; at < passes; ++at) ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = tokens}));
    ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(5 * 512 + passes * tokens));
  }
}

/// A chunk that waits beside replays: they seal it, and what they may take was promised.
TEST(GpuLateReports, ChunksBesideReplays) {
  Decoder<Full, Kivi<4>> decoder({}, {.residual = 0});
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  ASSERT_TRUE(decoder.cache.reserve(10));
  const Device::Work work = decoder.capture(1);
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .more_of_prompt = true}));
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(514));
}

/// A pass of one sequence leaves another one's unfinished prompt as it is.
TEST(GpuLateReports, PromptsGoOnBesideSteps) {
  Decoder<Full, Kivi<4>> decoder({}, {.residual = 0});
  const std::vector<int> chunk{0, 512};
  const std::vector<int> step{1, 0};
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = step}));
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = chunk, .more_of_prompt = true}));
  ASSERT_TRUE(Device::wait({}));
  const std::size_t before = *decoder.cache.bytes_in_use();
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = step}));
  EXPECT_EQ(*decoder.cache.bytes_in_use(), before);  // nothing was sealed
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = chunk, .more_of_prompt = true}));
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = chunk, .last_of_prompt = true}));
  for (int at = 0; at < 3; ++at) ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 100}));
  EXPECT_LT(*decoder.cache.bytes_in_use(), 2 * before);
  EXPECT_EQ(*decoder.cache.tokens(1, 0, 1), 3 * 512 + 300);
  EXPECT_EQ(decoder.cache.counters().missing, 0);
}

/// What a sequence gets is promised to it, and not to all.
template <class S>
void check_prompts_one_by_one(S storage) {
  constexpr int kMany = 16;
  gpu::Pool<Device> pool({.slab_bytes = 4096});
  {
    KVCache<StreamingLLM, OnGpu<S, Device>> cache(kShape, {.sinks = 4, .recent = 60}, {storage},
                                                  pool, {.sequences = kMany});
    const std::vector<float> numbers(static_cast<std::size_t>(512 * 2 * 64), 0.5F);
    for (int sequence = 0; sequence < kMany; ++sequence) {
      std::vector<int> counts(kMany);
      counts[static_cast<std::size_t>(sequence)] = 512;
      auto pass = cache.begin({.counts = counts, .last_of_prompt = true});
      ASSERT_TRUE(pass) << pass.status().message();
      ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
      ASSERT_TRUE(pass->commit());
      ASSERT_TRUE(Device::wait({}));
    }
    ASSERT_EQ(cache.counters().missing, 0);
    // a prompt's blocks, and three times what is kept: its own and what may be begun
    const std::size_t prompt = 512 * 2 * 2 * 64 * sizeof(half);
    EXPECT_LE(pool.bytes_held(), 3 * *cache.bytes_in_use() + 2 * prompt);
  }
  ASSERT_TRUE(Device::wait({}));
}
TEST(GpuLateReports, PromptsOneByOne) {
  check_prompts_one_by_one(Dense<half>{});
  check_prompts_one_by_one(Kivi<4>{.residual = 0});
}

/// Of a prompt in chunks a policy evicts most before anything is sealed: what is gone needs no
/// codes.
TEST(GpuLateReports, ChunksThatWereEvicted) {
  Decoder<StreamingLLM, Kivi<4>> decoder({.sinks = 4, .recent = 60}, {.residual = 0});
  for (int chunk = 0; chunk < 12; ++chunk) {
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 512, .more_of_prompt = true}));
    ASSERT_TRUE(Device::wait({}));
  }
  const std::size_t before = decoder.pool().bytes_held();
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.last_of_prompt = true}));
  ASSERT_TRUE(Device::wait({}));
  EXPECT_LE(decoder.pool().bytes_held(), before + before / 10);
  EXPECT_EQ(decoder.cache.counters().missing, 0);
}

}  // namespace
}  // namespace kvast
