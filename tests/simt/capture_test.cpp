// SPDX-License-Identifier: Apache-2.0
// What a capture refuses: passes that began outside it, and what would wait.
#include <gtest/gtest.h>

#include "kvast/policy/fastgen.h"
#include "kvast/policy/full.h"
#include "tests/simt/queued_decoder.h"

namespace kvast {
namespace {

using test::queued::Decoder;
using test::queued::Device;

TEST(GpuCapture, APassDoesNotCrossIntoACapture) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 40}));
  ASSERT_TRUE(decoder.cache.reserve(10));
  {
    auto pass = decoder.cache.begin();
    ASSERT_TRUE(pass);
    ASSERT_NO_FATAL_FAILURE(decoder.append(*pass, false));
    Device::Work work;
    Device::captured = &work;
    EXPECT_THROW((void)pass->commit(), Error);
    Device::captured = nullptr;
  }
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(40));
}

/// Nor can it be taken back there: it would be, with each replay.
TEST(GpuCapture, APassDroppedWithinACaptureTearsTheCache) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 40}));
  Device::Work work;
  {
    auto pass = decoder.cache.begin();
    ASSERT_TRUE(pass);
    ASSERT_NO_FATAL_FAILURE(decoder.append(*pass, false));
    Device::captured = &work;
  }
  Device::captured = nullptr;
  EXPECT_TRUE(work.empty());
  EXPECT_EQ(decoder.cache.begin().status().code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache.clear());
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 3}));
  ASSERT_NO_FATAL_FAILURE(decoder.expect_tokens(3));
}

/// A head that chooses over more blocks than were profiled reads none beyond, and is told.
TEST(GpuCapture, ChoosingOverListsThatGrewIsTold) {
  Decoder<FastGen, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 8, .last_of_prompt = true}, true));
  ASSERT_TRUE(decoder.cache.reserve(8));
  const Device::Work work = decoder.capture({.tokens = 8, .last_of_prompt = true}, true);
  ASSERT_TRUE(decoder.cache.clear(0));
  const std::vector<int> counts{300, 0};
  for (int pass = 0; pass < 3; ++pass)
    ASSERT_NO_FATAL_FAILURE(decoder.pass({.counts = counts}, true));
  Device::replay(work);
  ASSERT_TRUE(decoder.cache.settle());
  EXPECT_EQ(decoder.cache.begin().status().code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache.clear());
}

TEST(GpuCapture, NothingIsReadBackWithinACapture) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({.tokens = 40}));
  Device::Work work;
  Device::captured = &work;
  EXPECT_THROW((void)decoder.cache.tokens(0, 0, 0), Error);
  EXPECT_THROW((void)decoder.cache.kept(0, 0, 0), Error);
  EXPECT_THROW((void)decoder.cache.slots(0, 0, 0), Error);
  EXPECT_THROW((void)decoder.cache.bytes_in_use(), Error);
  Device::captured = nullptr;
  EXPECT_TRUE(work.empty());
}

TEST(GpuCapture, CapturesWithoutAReserveAreRefused) {
  Decoder<Full, Dense<half>> decoder;
  ASSERT_NO_FATAL_FAILURE(decoder.pass({}));
  Device::Work work;
  Device::captured = &work;
  EXPECT_THROW((void)decoder.cache.begin(), Error);
  Device::captured = nullptr;
}

}  // namespace
}  // namespace kvast
