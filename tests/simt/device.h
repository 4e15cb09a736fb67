// SPDX-License-Identifier: Apache-2.0
// A device of gpu/device.h on the CPU: memory is the heap's, kernels run in the simt runner, and
// any call can be made to fail.
#pragma once

#include <cstdlib>
#include <cstring>

#include "kvast/gpu/device.h"
#include "tests/simt/run.h"

namespace kvast::test {

/// Everything is done when a call returns. One state for all: tests are one after another.
struct SimtDevice {
  struct Stream {};

  inline static Schedule schedule{};
  inline static int fails_at = -1;      ///< calls that can fail, counted down to 0; negative: never
  inline static bool missing = false;   ///< all of them fail
  inline static int calls = 0;          ///< that can fail
  inline static std::int64_t live = 0;  ///< allocations that were not released
  inline static int launched = 0;

  /// As at the beginning.
  static void reset() {
    schedule = {};
    fails_at = -1;
    missing = false;
    calls = launched = 0;
  }

  static Status allocate(void*& memory, std::size_t bytes, Stream) {
    if (missing) return {StatusCode::device_failed, "device memory: no device"};
    if (fails()) return {StatusCode::pool_exhausted, "device memory: out of memory"};
    return heap(memory, bytes);
  }
  static void release(void* memory, Stream) { release_host(memory); }
  static Status allocate_host(void*& memory, std::size_t bytes) {
    if (fails()) return {StatusCode::pool_exhausted, "pinned memory: out of memory"};
    return heap(memory, bytes);
  }
  static void release_host(void* memory) {
    --live;
    std::free(memory);
  }
  static Status copy(void* to, const void* from, std::size_t bytes, Stream) {
    if (fails()) return {StatusCode::device_failed, "copy: failed"};
    std::memcpy(to, from, bytes);
    return {};
  }
  static Status fill(void* memory, int byte, std::size_t bytes, Stream) {
    if (fails()) return {StatusCode::device_failed, "fill: failed"};
    std::memset(memory, byte, bytes);
    return {};
  }
  static Status wait(Stream) { return {}; }
  static int processors() { return 4; }
  template <class Kernel>
  static Status launch(const Kernel& kernel, gpu::Grid grid, Stream) {
    if (fails()) return {StatusCode::device_failed, "launch: failed"};
    ++launched;
    if (grid.blocks > 0) run_kernel(kernel, grid, schedule);
    return {};
  }

 private:
  static bool fails() {
    ++calls;
    return missing || (fails_at >= 0 && fails_at-- == 0);
  }
  static Status heap(void*& memory, std::size_t bytes) {
    if (posix_memalign(&memory, 256, bytes) != 0) return {StatusCode::pool_exhausted, "heap"};
    std::memset(memory, 0xFF, bytes);  // NaN, until something is written
    ++live;
    return {};
  }
};
static_assert(gpu::Device<SimtDevice>);

}  // namespace kvast::test
