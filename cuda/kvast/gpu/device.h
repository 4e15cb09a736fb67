// SPDX-License-Identifier: Apache-2.0
// What the GPU backend asks of a device: memory, copies, launches, all in the order of a stream.
// CudaDevice (cuda_device.cuh) is the one that users have; tests have one on the CPU.
#pragma once

#include <concepts>
#include <cstddef>
#include <utility>

#include "kvast/core/status.h"

namespace kvast::gpu {

/// All functions are static. Every one that can fail returns a Status and has then done nothing.
///   Stream                                  a handle; a default one is the null stream
///   allocate(memory, bytes, stream)         device memory, aligned to 256 bytes
///   release(memory, stream)                 usable by nobody once the stream has passed
///   allocate_host(memory, bytes)            host memory that copies can reach at any time
///   release_host(memory)
///   copy(to, from, bytes, stream)           either side on either machine
///   fill(memory, byte, bytes, stream)
///   wait(stream)                            until all before is done
///   capturing(stream)                       what is launched is recorded, and done later or never
///   together<Kernel>(grid)                  thread blocks of such a launch that run at the same
///                                           time on the whole device; 0 where none can
///   launch(kernel, grid, stream)            see block.cuh
/// For programs that know their models, which need not compile attention for all heads:
///   AttendWidths                            std::integer_sequence<int, ...>, ascending, of 64, 96,
///                                           128 and 256; all of them where there is none
template <class Candidate>
concept Device = requires(void*& memory, const void* from, std::size_t bytes,
                          typename Candidate::Stream stream) {
  { Candidate::allocate(memory, bytes, stream) } -> std::same_as<Status>;
  Candidate::release(memory, stream);
  { Candidate::allocate_host(memory, bytes) } -> std::same_as<Status>;
  Candidate::release_host(memory);
  { Candidate::copy(memory, from, bytes, stream) } -> std::same_as<Status>;
  { Candidate::fill(memory, 0, bytes, stream) } -> std::same_as<Status>;
  { Candidate::wait(stream) } -> std::same_as<Status>;
  { Candidate::capturing(stream) } -> std::same_as<bool>;
};

namespace detail {

template <class DeviceType>
struct WidthsOf {
  using Type = std::integer_sequence<int, 64, 96, 128, 256>;
};
template <class DeviceType>
requires requires { typename DeviceType::AttendWidths; }
struct WidthsOf<DeviceType> {
  using Type = typename DeviceType::AttendWidths;
};

}  // namespace detail

}  // namespace kvast::gpu
