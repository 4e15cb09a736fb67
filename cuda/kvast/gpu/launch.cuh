// SPDX-License-Identifier: Apache-2.0
// Runs a kernel (block.cuh) on the device.
#pragma once

#include <string>

#include "kvast/core/status.h"
#include "kvast/gpu/block.cuh"

namespace kvast::gpu {

#if defined(__CUDACC__)

namespace detail {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) enter_kernel(const Kernel kernel) {
  DeviceBlock block;
  kernel(block);
}

/// More shared memory than a kernel has without asking: all that there is, as the limit is one for
/// all threads of the process, and another one's launch must not lower it.
template <class Kernel>
cudaError_t grant_shared(std::size_t bytes) {
  constexpr std::size_t kGranted = std::size_t{48} << 10U;
  if (bytes <= kGranted) return cudaSuccess;
  int device = 0;
  int most = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  if (const cudaError_t error =
          cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
      error != cudaSuccess)
    return error;
  if (bytes > static_cast<std::size_t>(most)) return cudaErrorInvalidValue;
  return cudaFuncSetAttribute(enter_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              most);
}

/// Status of a call of CUDA's runtime. Also takes the error out of the runtime's memory, or the
/// next call would report it again.
inline Status status_of(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  (void)cudaGetLastError();
  const StatusCode code =
      error == cudaErrorMemoryAllocation ? StatusCode::pool_exhausted : StatusCode::device_failed;
  return {code, std::string(what) + ": " + cudaGetErrorString(error)};
}

}  // namespace detail

/// Starts `kernel` on `stream` and returns; a launch that the device refuses is a Status, and so is
/// a grid of fewer than no blocks. One of none does nothing.
template <class Kernel>
Status launch(const Kernel& kernel, Grid grid, cudaStream_t stream) {
  static_assert(Kernel::kThreads % kWarp == 0, "Kernel::kThreads must be a multiple of 32");
  if (grid.blocks == 0) return {};
  if (grid.blocks < 0) return {StatusCode::device_failed, "launch: more than 2^31 - 1 blocks"};
  if (const cudaError_t error = detail::grant_shared<Kernel>(grid.shared_bytes);
      error != cudaSuccess)
    return detail::status_of(error, "launch: shared memory");
  // an error that the caller left behind is none of ours: so not <<<>>> and cudaGetLastError
  void* arguments[] = {const_cast<Kernel*>(&kernel)};
  return detail::status_of(
      cudaLaunchKernel(reinterpret_cast<const void*>(detail::enter_kernel<Kernel>),
                       dim3(static_cast<unsigned>(grid.blocks)), dim3(Kernel::kThreads), arguments,
                       grid.shared_bytes, stream),
      "launch");
}

#endif

}  // namespace kvast::gpu
