// SPDX-License-Identifier: Apache-2.0
// A device any call of which can be made to fail, over one that works.
#pragma once

#include <cstdint>

#include "kvast/gpu/device.h"

namespace kvast::test {

/// One state for all: tests are one after another.
template <class Inner>
struct FailingDevice {
  using Stream = typename Inner::Stream;

  inline static int fails_at = -1;      ///< calls that can fail, counted down to 0; negative: never
  inline static bool missing = false;   ///< all of them fail
  inline static std::int64_t live = 0;  ///< allocations that were not released
  inline static int halts = 0;  ///< what a step does not do: allocations, releases and waits

  /// As at the beginning.
  static void reset() {
    fails_at = -1;
    missing = false;
  }

  static Status allocate(void*& memory, std::size_t bytes, Stream stream) {
    ++halts;
    if (missing) return {StatusCode::device_failed, "device memory: no device"};
    if (fails()) return {StatusCode::pool_exhausted, "device memory: out of memory"};
    return counted(Inner::allocate(memory, bytes, stream));
  }
  static void release(void* memory, Stream stream) {
    ++halts;
    --live;
    Inner::release(memory, stream);
  }
  static Status allocate_host(void*& memory, std::size_t bytes) {
    ++halts;
    if (fails()) return {StatusCode::pool_exhausted, "pinned memory: out of memory"};
    return counted(Inner::allocate_host(memory, bytes));
  }
  static void release_host(void* memory) {
    --live;
    Inner::release_host(memory);
  }
  static Status copy(void* to, const void* from, std::size_t bytes, Stream stream) {
    if (fails()) return {StatusCode::device_failed, "copy: failed"};
    return Inner::copy(to, from, bytes, stream);
  }
  static Status fill(void* memory, int byte, std::size_t bytes, Stream stream) {
    if (fails()) return {StatusCode::device_failed, "fill: failed"};
    return Inner::fill(memory, byte, bytes, stream);
  }
  static Status wait(Stream stream) {
    ++halts;
    if (fails()) return {StatusCode::device_failed, "stream: failed"};
    return Inner::wait(stream);
  }
  static bool capturing(Stream stream) { return Inner::capturing(stream); }
  template <class Kernel>
  static int together(gpu::Grid grid) {
    return fails() ? 0 : Inner::template together<Kernel>(grid);
  }
  template <class Kernel>
  static Status launch(const Kernel& kernel, gpu::Grid grid, Stream stream) {
    if (fails()) return {StatusCode::device_failed, "launch: failed"};
    return Inner::launch(kernel, grid, stream);
  }

 private:
  static bool fails() { return missing || (fails_at >= 0 && fails_at-- == 0); }
  static Status counted(Status status) {
    if (status) ++live;
    return status;
  }
};

}  // namespace kvast::test
