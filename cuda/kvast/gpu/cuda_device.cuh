// SPDX-License-Identifier: Apache-2.0
// CudaDevice: the current CUDA device.
#pragma once

#include "kvast/gpu/device.h"
#include "kvast/gpu/launch.cuh"

namespace kvast::gpu {

#if defined(__CUDACC__)

/// The device that is current (cudaSetDevice) in the calling thread.
struct CudaDevice {
  using Stream = cudaStream_t;

  static Status allocate(void*& memory, std::size_t bytes, Stream stream) {
    return detail::status_of(cudaMallocAsync(&memory, bytes, stream), "device memory");
  }
  static void release(void* memory, Stream stream) { (void)cudaFreeAsync(memory, stream); }
  static Status allocate_host(void*& memory, std::size_t bytes) {
    return detail::status_of(cudaMallocHost(&memory, bytes), "pinned memory");
  }
  static void release_host(void* memory) { (void)cudaFreeHost(memory); }
  static Status copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    return detail::status_of(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copy");
  }
  static Status fill(void* memory, int byte, std::size_t bytes, Stream stream) {
    return detail::status_of(cudaMemsetAsync(memory, byte, bytes, stream), "fill");
  }
  static Status wait(Stream stream) {
    return detail::status_of(cudaStreamSynchronize(stream), "stream");
  }
  static bool capturing(Stream stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) (void)cudaGetLastError();
    return status != cudaStreamCaptureStatusNone;
  }
  template <class Kernel>
  static int together(Grid grid) {
    int device = 0;
    int processors = 0;
    int each = 0;
    if (detail::grant_shared<Kernel>(grid.shared_bytes) != cudaSuccess ||
        cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) !=
            cudaSuccess ||
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, detail::enter_kernel<Kernel>,
                                                      Kernel::kThreads,
                                                      grid.shared_bytes) != cudaSuccess) {
      (void)cudaGetLastError();
      return 0;
    }
    return processors * each;
  }
  template <class Kernel>
  static Status launch(const Kernel& kernel, Grid grid, Stream stream) {
    return gpu::launch(kernel, grid, stream);
  }
};
static_assert(Device<CudaDevice>);

#endif

}  // namespace kvast::gpu
