// SPDX-License-Identifier: Apache-2.0
// A device of gpu/device.h on the CPU: memory is the heap's, kernels run in the simt runner, and
// what was done can be done again, as a CUDA graph does it.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "kvast/gpu/device.h"
#include "tests/simt/run.h"

namespace kvast::test {

/// Everything is done when a call returns. One state for all: tests are one after another.
struct SimtDevice {
  struct Stream {};
  using Work = std::vector<std::function<Status()>>;

  inline static Schedule schedule{};
  inline static Work* captured = nullptr;  ///< where work goes that is captured, not done

  static Status allocate(void*& memory, std::size_t bytes, Stream) {
    if (posix_memalign(&memory, 256, bytes) != 0) return {StatusCode::pool_exhausted, "heap"};
    std::memset(memory, 0xFF, bytes);  // NaN, until something is written
    return {};
  }
  static void release(void* memory, Stream) { std::free(memory); }
  static Status allocate_host(void*& memory, std::size_t bytes) {
    return allocate(memory, bytes, {});
  }
  static void release_host(void* memory) { std::free(memory); }
  static Status copy(void* to, const void* from, std::size_t bytes, Stream) {
    return act([=]() -> Status {
      std::memcpy(to, from, bytes);
      return {};
    });
  }
  static Status fill(void* memory, int byte, std::size_t bytes, Stream) {
    return act([=]() -> Status {
      std::memset(memory, byte, bytes);
      return {};
    });
  }
  static Status wait(Stream) { return {}; }
  static bool capturing(Stream) { return captured != nullptr; }
  template <class Kernel>
  static int together(gpu::Grid) {
    return 12;
  }
  template <class Kernel>
  static Status launch(const Kernel& kernel, gpu::Grid grid, Stream) {
    return act([=]() -> Status {
      if (grid.blocks < 0) return {StatusCode::device_failed, "launch: more than 2^31 - 1 blocks"};
      if (grid.blocks > 0) run_kernel(kernel, grid, schedule);
      return {};
    });
  }
  static Status replay(const Work& work) {
    for (const auto& one : work) {
      if (Status status = one(); !status) return status;
    }
    return {};
  }

 private:
  template <class Body>
  static Status act(const Body& body) {
    if (captured == nullptr) return body();
    captured->push_back(body);
    return {};
  }
};
static_assert(gpu::Device<SimtDevice>);

}  // namespace kvast::test
