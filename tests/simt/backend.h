// SPDX-License-Identifier: Apache-2.0
// Which device the tests of tests/simt run on: g++ compiles them for the simt runner, nvcc (see
// tests/gpu) for the CUDA device. Their tensors are std::vectors that it can reach.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#if defined(__CUDACC__)
#include "kvast/gpu/cuda_device.cuh"
#else
#include "tests/simt/device.h"
#endif

namespace kvast::test {

#if defined(__CUDACC__)

/// The CUDA device. Its memory is NaN until something is written, as the simt runner's is; and
/// initcheck does not mind copies of slots that hold no token.
struct TestDevice : gpu::CudaDevice {
  static Status allocate(void*& memory, std::size_t bytes, Stream stream) {
    Status status = CudaDevice::allocate(memory, bytes, stream);
    status.then([&] { return fill(memory, 0xFF, bytes, stream); });
    return status;
  }
};

template <class Value>
struct Managed {
  using value_type = Value;
  Managed() = default;
  template <class Other>
  Managed(const Managed<Other>&) {}
  Value* allocate(std::size_t count) {
    void* memory = nullptr;
    if (cudaMallocManaged(&memory, count * sizeof(Value)) != cudaSuccess) throw std::bad_alloc();
    return static_cast<Value*>(memory);
  }
  void deallocate(Value* memory, std::size_t) { (void)cudaFree(memory); }
  friend bool operator==(const Managed&, const Managed&) { return true; }
};
template <class Value>
using DeviceVector = std::vector<Value, Managed<Value>>;

struct Schedule {};
inline constexpr Schedule kSchedules[] = {{}};
inline void begin_schedule(Schedule) {}
/// Long tests run whole in one order only.
inline bool is_first(Schedule) { return true; }
/// Not the default one, which nothing may use.
inline cudaStream_t stream() {
  static cudaStream_t one = [] {
    cudaStream_t made = nullptr;
    (void)cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    return made;
  }();
  return one;
}

#else

using TestDevice = SimtDevice;
template <class Value>
using DeviceVector = std::vector<Value>;

inline void begin_schedule(Schedule schedule) { SimtDevice::schedule = schedule; }
inline bool is_first(Schedule schedule) { return schedule.order == kSchedules[0].order; }
inline SimtDevice::Stream stream() { return {}; }

#endif

/// Tensors may be read, changed and freed again.
inline void wait() {
  if (!TestDevice::wait(stream())) throw std::runtime_error("the stream failed");
}
template <class Value>
DeviceVector<Value> on_device(const std::vector<Value>& host) {
  return DeviceVector<Value>(host.begin(), host.end());
}

}  // namespace kvast::test
