// SPDX-License-Identifier: Apache-2.0
// A cache on a device that does its work late, and tokens for it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kvast/gpu/kv_cache.cuh"
#include "tests/simt/queueing_device.h"
#include "tests/support/random.h"

namespace kvast::test::queued {

using Device = QueueingDevice;

inline constexpr Shape kShape{.query_heads = 2, .heads = 2, .head_dim = 64};
inline constexpr int kSequences = 2;

/// A cache, and tokens for it.
template <class Policy, class S>
class Decoder {
 public:
  using Cache = KVCache<Policy, OnGpu<S, Device>>;

  explicit Decoder(Policy policy = {}, S storage = {})
      : cache(kShape, policy, {storage}, pool_, {.sequences = kSequences}) {}

  void pass(const gpu::PassOptions& options, bool attends = false) {
    auto pass = cache.begin(options);
    ASSERT_TRUE(pass) << pass.status().message();
    ASSERT_NO_FATAL_FAILURE(append(*pass, attends));
    ASSERT_TRUE(pass->commit());
  }
  void append(typename Cache::Pass& pass, bool attends) {
    ASSERT_TRUE(pass.append(0, numbers_.data(), numbers_.data()));
    if (!attends) return;
    const Status status = pass.attend(0, numbers_.data(), output_.data());
    ASSERT_TRUE(status) << status.message();
  }
  Device::Work capture(int tokens, bool attends = false) {
    return capture(gpu::PassOptions{.tokens = tokens}, attends);
  }
  Device::Work capture(const gpu::PassOptions& options, bool attends = false) {
    Device::Work work;
    Device::captured = &work;
    pass(options, attends);
    Device::captured = nullptr;
    return work;
  }
  /// Other tokens and queries from now on, where the last ones were read.
  void draw(int seed) {
    const auto drawn = Random(static_cast<std::uint64_t>(seed)).normals(numbers_.size() / 8);
    std::copy(drawn.begin(), drawn.end(), numbers_.begin());
  }
  const gpu::Pool<Device>& pool() const { return pool_; }
  /// Of the last pass of one token.
  std::vector<float> output() const {
    return {output_.begin(), output_.begin() + kSequences * 2 * 64};
  }
  void expect_tokens(int tokens) {
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      for (int head = 0; head < kShape.heads; ++head)
        ASSERT_EQ(*cache.tokens(sequence, 0, head), tokens)
            << "sequence " << sequence << ", head " << head;
    }
    ASSERT_EQ(cache.counters().missing, 0);
  }

 private:
  struct Waits {
    ~Waits() { (void)Device::wait({}); }
  };

  Waits for_releases_;
  std::vector<float> numbers_ = std::vector<float>(kSequences * 520 * 4 * 64, 0.5F);
  std::vector<float> output_ = std::vector<float>(kSequences * 520 * 4 * 64);
  gpu::Pool<Device> pool_{{.slab_bytes = 4096}};

 public:
  Cache cache;

 private:
  Waits for_passes_;  // they read the numbers
};

}  // namespace kvast::test::queued
