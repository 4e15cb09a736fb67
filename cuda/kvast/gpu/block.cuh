// SPDX-License-Identifier: Apache-2.0
// The seam, second half: what the threads of one block do together, and what one of them does to
// memory. A kernel is a trivially copyable struct of its arguments:
//
//   struct Kernel {
//     static constexpr int kThreads = 128;                       // per block, a multiple of 32
//     template <class Block> KVAST_HD void operator()(Block& block) const;   // its source
//   };
//
// launch.cuh runs it on the device, tests/simt on fibers. Grids are one-dimensional. The simt
// runner executes one block after another, in any order: a block must not wait for another one.
//
//   thread(), threads()         this thread in the block, and their number, Kernel::kThreads
//   index(), blocks()           this block in the grid, and their number
//   warp()                      the calling thread's warp (warp.cuh)
//   warp_index(), warps()       of this thread in the block, and their number
//   sync()                      every thread of the block takes part, in the same place of the
//                               source; one that has returned or is elsewhere is an error, and the
//                               simt runner reports it. Orders reads and writes of shared and
//                               global memory within the block
//   shared()                    the launch's bytes of shared memory, 128-byte aligned, with
//                               arbitrary contents (the simt runner fills them with NaN)
//   copy_async<bytes>(to, from, valid)
//                               starts a copy of 4, 8 or 16 bytes (both sides aligned to that) from
//                               global to shared memory; where not `valid`, zeroes are written and
//                               nothing is read. To be read by nobody before it was waited for
//   commit_copies()             closes a group of this thread's copies, which may be empty
//   wait_copies<n>()            until at most the n newest groups of this thread are unfinished;
//                               other threads see them after a sync() that follows
//   fetch_add(at, value)        atomic; the value before. int, unsigned, unsigned long long, float
//   fetch_or, fetch_and(at, value)       unsigned
//   compare_exchange(at, expected, wanted)   unsigned or unsigned long long: the value before
//   fence()                     what this thread wrote before is visible to all blocks before what
//                               it writes after
#pragma once

#include "kvast/gpu/warp.cuh"

namespace kvast::gpu {

/// How many blocks a launch has, and the shared memory of each.
struct Grid {
  int blocks = 1;
  std::size_t shared_bytes = 0;
};

#if defined(__CUDACC__)

/// The block that calls.
class DeviceBlock {
 public:
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ int index() const { return static_cast<int>(blockIdx.x); }
  __device__ int blocks() const { return static_cast<int>(gridDim.x); }
  __device__ DeviceWarp warp() const { return {}; }
  __device__ int warp_index() const { return thread() / kWarp; }
  __device__ int warps() const { return threads() / kWarp; }
  __device__ void sync() const { __syncthreads(); }
  __device__ std::byte* shared() const {
    extern __shared__ __align__(128) std::byte dynamic_shared[];
    return dynamic_shared;
  }

  template <int kBytes = 16>
  __device__ void copy_async(void* to, const void* from, bool valid = true) const {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "copy_async: 4, 8 or 16 bytes");
    const auto target = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    const std::size_t source = __cvta_generic_to_global(from);
    const int bytes = valid ? kBytes : 0;
    if constexpr (kBytes == 16) {  // .cg: streamed bytes need no place in L1
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                   :
                   : "r"(target), "l"(source), "r"(bytes)
                   : "memory");
    } else {
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                   :
                   : "r"(target), "l"(source), "n"(kBytes), "r"(bytes)
                   : "memory");
    }
  }
  __device__ void commit_copies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int kNewest>
  __device__ void wait_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
  }

  template <class Value>
  __device__ Value fetch_add(Value* at, Value value) const {
    return atomicAdd(at, value);
  }
  __device__ unsigned fetch_or(unsigned* at, unsigned value) const { return atomicOr(at, value); }
  __device__ unsigned fetch_and(unsigned* at, unsigned value) const { return atomicAnd(at, value); }
  template <class Value>
  __device__ Value compare_exchange(Value* at, Value expected, Value wanted) const {
    return atomicCAS(at, expected, wanted);
  }
  __device__ void fence() const { __threadfence(); }
};

#endif

}  // namespace kvast::gpu
