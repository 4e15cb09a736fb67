// SPDX-License-Identifier: Apache-2.0
// Which of the evaluator's caches on the GPU a SPEC names.
#pragma once

#include <memory>

#include "bench/quality/gpu/evaluator_device.cuh"

namespace kvast::quality {

/// All formats and policies, over one pool.
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
