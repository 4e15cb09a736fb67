// SPDX-License-Identifier: Apache-2.0
// The CUDA device as the evaluator uses it.
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

}  // namespace kvast::quality
