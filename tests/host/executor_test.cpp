// SPDX-License-Identifier: Apache-2.0
// Executors: every index once, and the same bits where a commit is long enough to run in parallel.
#include "kvast/core/executor.h"

#include <gtest/gtest.h>

#include <atomic>

#include "kvast/host/openmp.h"
#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

TEST(Executor, RunsEveryIndexOnce) {
  for (const Executor& executor : {serial(), openmp(2), openmp(0), openmp(5)}) {
    for (const int count : {0, 1, 2, 100}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      executor.parallel_for(count, [&](int index) { ++runs[static_cast<std::size_t>(index)]; });
      for (const auto& run : runs) EXPECT_EQ(run, 1);
    }
  }
}

/// The caller's own executor, backwards.
Executor backwards() {
  return {.run = [](void*, int count, Executor::Task task, void* data) {
    for (int index = count - 1; index >= 0; --index) task(data, index);
  }};
}

std::vector<float> long_history(Executor executor, const AnyStorage& storage, std::size_t& bytes) {
  constexpr Shape kShape{.query_heads = 3, .heads = 3, .head_dim = 8};
  BlockPool pool;
  KVCache<L2Norm, AnyStorage> cache(kShape,
                                    {.tokens_kept = 5000, .skip = {}, .when = When::full(100)},
                                    storage, pool, {.executor = executor});
  test::Random random(14);
  std::vector<float> result;
  for (const int count : {7000, 30, 90, 1}) {  // 3 heads x 7,000 tokens: the commit is parallel
    const auto keys = random.normals(static_cast<std::size_t>(count) * 24);
    auto pass = cache.begin({.tokens = count});
    pass->append(0, std::span(keys), std::span(keys));
    if (count < 100) {
      std::vector<float> output(keys.size());
      pass->attend(0, std::span(keys), std::span(output));
      result.insert(result.end(), output.begin(), output.end());
    }
    pass->commit(0);
    for (int head = 0; head < 3; ++head) {
      for (const int position : cache.kept(0, head)) result.push_back(static_cast<float>(position));
    }
  }
  std::vector<float> keys(5000 * 24);
  cache.export_dense(0, std::span(keys), {});
  result.insert(result.end(), keys.begin(), keys.end());
  bytes = cache.bytes_in_use();
  return result;
}

void expect_same_bits(const AnyStorage& storage) {
  std::size_t wanted_bytes = 0;
  const std::vector<float> wanted = long_history(serial(), storage, wanted_bytes);
  for (const Executor& executor : {openmp(2), openmp(3), backwards()}) {
    std::size_t bytes = 0;
    EXPECT_EQ(long_history(executor, storage, bytes), wanted);
    EXPECT_EQ(bytes, wanted_bytes);
  }
}

TEST(Executor, LongCommitsGiveTheSameBits) {
  expect_same_bits(Dense<half>{});
  expect_same_bits(Kivi<4>{.residual = 64});
}

}  // namespace
}  // namespace kvast
