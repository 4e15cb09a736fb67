// SPDX-License-Identifier: Apache-2.0
// The seam, first half: what 32 lanes do together. Kernels are templates over `Block` (block.cuh);
// they get their warp by `block.warp()` and use nothing of CUDA but what stands in these two files.
// Here is the device's implementation; tests/simt has one on fibers, so that g++ compiles and runs
// the same kernels.
//
// What holds of every operation below but `lane`:
//   * All 32 lanes take part, in the same place of the source. One that has returned, or that is
//     elsewhere, is an error: undefined on the device, reported by name in the simt runner.
//   * It orders no reads or writes of memory, but for sync(): CUDA promises none of a shuffle, a
//     vote or a product. What a lane shows is of course read before; what it wrote, others find
//     after a sync(), and only after one may they write over what it still reads. The simt runner
//     sees less than that: there all lanes meet in each operation, and only reads of
//     load_matrices may come after other lanes' later writes.
//
//   lane()                         in [0, 32)
//   sync()                         orders the warp's reads and writes of shared and global memory
//   shuffle(value, source)         value of lane `source`, in [0, 32), which may differ by lane
//   shuffle_xor(value, mask)       of lane `lane ^ mask`
//   shuffle_up(value, distance)    of lane `lane - distance`; below it lanes keep their own
//                                  (values: int, unsigned, float, long long or unsigned long long)
//   ballot(condition)              bit `lane` says what that lane said
//   largest(value)                 of all lanes' unsigned values, to each
//   load_matrices(to, row)         ldmatrix.x4: lane l gives the address (shared memory, 16-byte
//                                  aligned) of row l % 8 of matrix l / 8, eight 16-bit numbers.
//                                  to[m] are columns 2 * (lane % 4) and + 1 of row lane / 4 of
//                                  matrix m, the first in the lower half
//   load_matrices_turned(to, row)  the same of transposed matrices: to[m] are rows 2 * (lane % 4)
//                                  and + 1 of column lane / 4
//   multiply_f16(sum, a, b0, b1)   mma.sync.m16n8k16, sum [16, 8] += a [16, 16] * b [16, 8] in f32.
//   multiply_bf16(sum, a, b0, b1)  With row = lane / 4 and pair = 2 * (lane % 4), two neighbours to
//                                  a register, the first in the lower half:
//                                    a[0] = a(row, pair..)      a[1] = a(row + 8, pair..)
//                                    a[2] = a(row, pair + 8..)  a[3] = a(row + 8, pair + 8..)
//                                    b0 = b(pair.., row)        b1 = b(pair + 8.., row)
//                                    sum = (row, pair), (row, pair + 1), (row + 8, pair), and so on
//                                  Products are exact; the order and rounding of their sums is
//                                  the hardware's, towards zero (so long sums of one sign drift):
//                                  compare within a tolerance. Leading zeros of subnormal numbers
//                                  are bits lost of these sums. tests/simt/tensor_core.h has what
//                                  was measured, and by whom.
//   multiply_s8(sum, a, b0, b1)    mma.sync.m16n8k32, int32 += int8 * int8, exact: as above with
//                                  pair = 4 * (lane % 4), four neighbours to a register and + 16
//                                  for + 8.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "kvast/core/host_device.h"

namespace kvast::gpu {

inline constexpr int kWarp = 32;
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFU;

/// Sum over the warp's lanes, in the same order and so the same bits on every backend; every lane
/// gets it.
template <class Warp, class Value>
KVAST_HD Value warp_sum(const Warp& warp, Value value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += warp.shuffle_xor(value, mask);
  return value;
}

/// Largest value of the warp's lanes. None of them may be NaN.
template <class Warp, class Value>
KVAST_HD Value warp_max(const Warp& warp, Value value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const Value other = warp.shuffle_xor(value, mask);
    value = value < other ? other : value;
  }
  return value;
}

/// Sum over this lane and those below it.
template <class Warp>
KVAST_HD int warp_scan(const Warp& warp, int value) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int below = warp.shuffle_up(value, distance);
    if (warp.lane() >= distance) value += below;
  }
  return value;
}

#if defined(__CUDACC__)

/// The warp that calls.
class DeviceWarp {
 public:
  __device__ int lane() const { return static_cast<int>(threadIdx.x % kWarp); }
  __device__ void sync() const { __syncwarp(); }
  template <class Value>
  __device__ Value shuffle(Value value, int source) const {
    return __shfl_sync(kAllLanes, value, source);
  }
  template <class Value>
  __device__ Value shuffle_xor(Value value, int mask) const {
    return __shfl_xor_sync(kAllLanes, value, mask);
  }
  template <class Value>
  __device__ Value shuffle_up(Value value, int distance) const {
    return __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance));
  }
  __device__ std::uint32_t ballot(bool condition) const {
    return __ballot_sync(kAllLanes, condition);
  }
  __device__ unsigned largest(unsigned value) const { return __reduce_max_sync(kAllLanes, value); }
  __device__ void load_matrices(std::uint32_t (&to)[4], const void* row) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
  }
  __device__ void load_matrices_turned(std::uint32_t (&to)[4], const void* row) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
                 : "memory");
  }
  __device__ void multiply_f16(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                               std::uint32_t b1) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  __device__ void multiply_bf16(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) const {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  __device__ void multiply_s8(std::int32_t (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                              std::uint32_t b1) const {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
};

#endif

}  // namespace kvast::gpu
