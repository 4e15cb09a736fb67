// SPDX-License-Identifier: Apache-2.0
// Caches on streams of their own, at work at the same time, keep and answer what they do alone.
#include <gtest/gtest.h>

#include <memory>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/h2o.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr int kStreams = 8;
constexpr int kCaches = 8;  // of each
constexpr int kSteps = 200;
constexpr Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 64};

/// A stream, its pool and its caches.
class Lane {
 public:
  explicit Lane(int seed) {
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    pool_ = std::make_unique<gpu::Pool<gpu::CudaDevice>>(
        gpu::PoolOptions<cudaStream_t>{.stream = stream_});
    for (int cache = 0; cache < kCaches; ++cache) {
      caches_.push_back(std::make_unique<Cache>(kShape, H2O{.heavy = 60, .recent = 30},
                                                OnGpu<Kivi<4>>{{.residual = 32}}, *pool_));
      numbers_.push_back(test::on_device(
          test::Random(static_cast<std::uint64_t>(seed * kCaches + cache)).normals(4096)));
      outputs_.emplace_back(4 * 64);
    }
  }
  ~Lane() {
    wait();
    caches_.clear();
    pool_.reset();
    (void)cudaStreamDestroy(stream_);
  }
  void wait() { EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }
  void step(int step) {
    for (std::size_t at = 0; at < caches_.size(); ++at) {
      const float* numbers = numbers_[at].data() + step % 1000;
      auto pass = caches_[at]->begin();
      ASSERT_TRUE(pass) << pass.status().message();
      for (int layer = 0; layer < kShape.layers; ++layer) {
        ASSERT_TRUE(pass->append(layer, numbers, numbers + 500));
        ASSERT_TRUE(pass->attend(layer, numbers + 1000, outputs_[at].data()));
      }
      ASSERT_TRUE(pass->commit());
    }
  }
  void expect_equal(Lane& other) {
    for (std::size_t at = 0; at < caches_.size(); ++at) {
      EXPECT_EQ(outputs_[at], other.outputs_[at]);
      for (int head = 0; head < kShape.heads; ++head)
        EXPECT_EQ(*caches_[at]->kept(0, 1, head), *other.caches_[at]->kept(0, 1, head));
    }
  }

 private:
  using Cache = KVCache<H2O, OnGpu<Kivi<4>>>;
  cudaStream_t stream_ = nullptr;
  std::unique_ptr<gpu::Pool<gpu::CudaDevice>> pool_;
  std::vector<std::unique_ptr<Cache>> caches_;
  std::vector<test::DeviceVector<float>> numbers_;
  std::vector<test::DeviceVector<float>> outputs_;
};

TEST(Streams, TogetherAsAlone) {
  std::vector<std::unique_ptr<Lane>> together;
  for (int lane = 0; lane < kStreams; ++lane) together.push_back(std::make_unique<Lane>(lane));
  for (int step = 0; step < kSteps; ++step) {
    for (auto& lane : together) ASSERT_NO_FATAL_FAILURE(lane->step(step));
  }
  for (auto& lane : together) lane->wait();
  for (int lane = 0; lane < kStreams; ++lane) {
    Lane alone(lane);
    for (int step = 0; step < kSteps; ++step) ASSERT_NO_FATAL_FAILURE(alone.step(step));
    alone.wait();
    alone.expect_equal(*together[static_cast<std::size_t>(lane)]);
  }
}

}  // namespace
}  // namespace kvast
