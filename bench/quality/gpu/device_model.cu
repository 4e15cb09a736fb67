// SPDX-License-Identifier: Apache-2.0
// The decoder and its caches on the current CUDA device.
#include <limits>

#include "bench/quality/any_model.h"
#include "bench/quality/gpu/evaluator_caches.cuh"
#include "examples/decoder/gpu/device_llama.cuh"

namespace kvast::quality {

namespace {

/// A stream of its own: nothing uses the default one.
struct OwnStream {
  OwnStream() {
    int devices = 0;
    decoder::require_device(gpu::detail::status_of(cudaGetDeviceCount(&devices), "device"));
    if (devices == 0) throw decoder::DeviceError("the GPU: there is none");
    decoder::require_device(gpu::detail::status_of(
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream"));
  }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  ~OwnStream() { (void)cudaStreamDestroy(stream); }

  cudaStream_t stream = nullptr;
};

class DeviceModel final : public AnyModel {
 public:
  explicit DeviceModel(const decoder::LlamaWeights& weights)
      : llama_(weights, stream_.stream), caches_(stream_.stream) {}

  Status forward(AnyCache& cache, std::span<const int> tokens, int first_position,
                 const PassOptions& pass, std::span<const int> rows) override {
    return llama_.forward(cache, tokens, first_position, pass, rows);
  }
  std::span<const float> logits(int index) const override { return llama_.logits(index); }
  const decoder::LlamaConfig& config() const override { return llama_.config(); }
  CacheDevice* device() override { return &caches_; }
  decoder::CacheTime cache_time() const override {
    constexpr double kNobodyKnows = std::numeric_limits<double>::quiet_NaN();
    return {.append = kNobodyKnows, .attend = kNobodyKnows, .commit = kNobodyKnows};
  }
  void reset_cache_time() override {}

 private:
  OwnStream stream_;
  decoder::DeviceLlama<EvaluatorDevice> llama_;
  EvaluatorCaches caches_;
};

}  // namespace

std::unique_ptr<AnyModel> open_on_gpu(const decoder::LlamaWeights& weights) {
  return std::make_unique<DeviceModel>(weights);
}

}  // namespace kvast::quality
