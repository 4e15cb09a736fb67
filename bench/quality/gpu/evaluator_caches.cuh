// SPDX-License-Identifier: Apache-2.0
// The CUDA device as the evaluator uses it, and which of its caches a SPEC names.
#pragma once

#include <memory>
#include <utility>

#include "bench/quality/gpu/kept_layers.cuh"
#include "kvast/gpu/cuda_device.cuh"
#include "kvast/gpu/pool.cuh"

namespace kvast::quality {

/// Heads of Llama models have 64 or 128 features: kernels for others are not compiled.
struct EvaluatorDevice : gpu::CudaDevice {
  using AttendWidths = std::integer_sequence<int, 64, 128>;
  static constexpr int kMostHeadDim = 128;
};

/// Any policy with storages of these formats: defined in device_cache.cuh, compiled in a file
/// caches_*.cu for each.
template <class Kept, class DeviceType>
std::unique_ptr<DeviceCache> make_kept(const DevicePolicy& policy, const DeviceCacheSetup& setup,
                                       gpu::Pool<DeviceType>& pool);

/// All of them, over one pool.
class EvaluatorCaches final : public CacheDevice {
 public:
  explicit EvaluatorCaches(cudaStream_t stream) : pool_({.stream = stream}) {}

  std::unique_ptr<DeviceCache> make(const DevicePolicy& policy,
                                    const DeviceCacheSetup& setup) override {
    require(setup.shape.head_dim <= EvaluatorDevice::kMostHeadDim, Caller::here(), "heads have ",
            setup.shape.head_dim, " features; this program's kernels are for at most ",
            EvaluatorDevice::kMostHeadDim);
    std::unique_ptr<DeviceCache> made;
    (void)(try_format<Dense<float>>(policy, setup, made) ||
           try_format<Dense<half>>(policy, setup, made) ||
           try_format<Dense<BF16>>(policy, setup, made) ||
           try_format<CodedLayers<Int<8>, Int<8>>>(policy, setup, made) ||
           try_format<CodedLayers<Int<4>, Int<4>>>(policy, setup, made) ||
           try_format<CodedLayers<Int<2>, Int<2>>>(policy, setup, made) ||
           try_format<CodedLayers<Int<8>, Int<4>>>(policy, setup, made) ||
           try_format<CodedLayers<Int<4>, Int<2>>>(policy, setup, made) ||
           try_format<CodedLayers<Fp8<E4M3>, Fp8<E4M3>>>(policy, setup, made));
    require(made != nullptr, Caller::here(), "no cache on the GPU keeps keys in ",
            setup.storage.keys, " and values in ", setup.storage.values);
    return made;
  }

 private:
  template <class Kept>
  bool try_format(const DevicePolicy& policy, const DeviceCacheSetup& setup,
                  std::unique_ptr<DeviceCache>& made) {
    if (!keeps<Kept>(setup.storage)) return false;
    made = make_kept<Kept>(policy, setup, pool_);
    return true;
  }

  gpu::Pool<EvaluatorDevice> pool_;
};

}  // namespace kvast::quality
