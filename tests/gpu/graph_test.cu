// SPDX-License-Identifier: Apache-2.0
// A step of 32 layers captured once in a CUDA graph and replayed while lengths grow gives what the
// uncaptured steps give.
#include <gtest/gtest.h>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/streaming_llm.h"
#include "tests/gpu/replay.h"
#include "tests/simt/backend.h"

namespace kvast {
namespace {

constexpr int kSteps = 1000;

class Batch {
 public:
  Batch()
      : cache_(Shape{.layers = 32, .query_heads = 2, .heads = 2, .head_dim = 64},
               {.sinks = 4, .recent = 300}, {{.residual = 32}}, pool_, {.sequences = 3}) {}

  void step() {
    auto pass = cache_.begin();
    ASSERT_TRUE(pass) << pass.status().message();
    for (int layer = 0; layer < cache_.layers(); ++layer)
      ASSERT_TRUE(pass->append(layer, rows_.data() + layer, rows_.data() + 2 * layer));
    ASSERT_TRUE(pass->commit());
  }
  void bring(int step) { rows_.bring(step); }
  auto& cache() { return cache_; }

 private:
  test::Rows rows_{kSteps, 3 * 2 * 64 + 100};
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = test::stream()}};
  KVCache<StreamingLLM, OnGpu<Kivi<4>>> cache_;
};

TEST(Graph, ReplaysEqualSteps) {
  Batch plain;
  Batch captured;
  for (int step = 0; step < kSteps; ++step) {
    plain.bring(step);
    ASSERT_NO_FATAL_FAILURE(plain.step());
  }
  captured.bring(0);
  ASSERT_NO_FATAL_FAILURE(captured.step());
  ASSERT_TRUE(captured.cache().reserve(kSteps));
  ASSERT_NO_FATAL_FAILURE(test::replay(
      kSteps - 1, [&] { captured.step(); }, [&](int time) { captured.bring(time + 1); },
      [](int) {}));
  ASSERT_TRUE(captured.cache().settle());
  for (int sequence = 0; sequence < 3; ++sequence) {
    ASSERT_EQ(captured.cache().length(sequence), kSteps);
    for (const int layer : {0, 31}) {
      ASSERT_EQ(*captured.cache().kept(sequence, layer, 1),
                *plain.cache().kept(sequence, layer, 1));
      const auto exported = [&](Batch& batch) {
        test::DeviceVector<float> both(2 * 304 * 2 * 64);  // keys, values
        EXPECT_TRUE(batch.cache().export_dense(sequence, layer, 304, both.data(),
                                               both.data() + both.size() / 2));
        test::wait();
        return both;
      };
      ASSERT_EQ(exported(captured), exported(plain));
    }
  }
  ASSERT_EQ(captured.cache().counters().missing, 0);
  for (int step = 0; step < 40; ++step) captured.step();  // the host goes on
  EXPECT_EQ(captured.cache().length(0), kSteps + 40);
}

}  // namespace
}  // namespace kvast
