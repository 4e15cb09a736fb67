// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/gpu/device_cache.cuh"
#include "bench/quality/gpu/evaluator_device.cuh"

namespace kvast::quality {

template std::unique_ptr<DeviceCache> make_kept<CodedLayers<Int<4>, Int<4>>>(
    const DevicePolicy&, const DeviceCacheSetup&, gpu::Pool<EvaluatorDevice>&);

}  // namespace kvast::quality
