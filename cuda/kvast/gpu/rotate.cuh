// SPDX-License-Identifier: Apache-2.0
// core/rotation.h by a warp, in registers: the same sums in the same order, so the same bits.
#pragma once

#include "kvast/core/numeric.h"
#include "kvast/core/rotation.h"
#include "kvast/core/shape.h"
#include "kvast/gpu/warp.cuh"

namespace kvast::gpu {

/// A vector over a warp's lanes: numbers[at] of a lane is that of dimension 32 * at + lane, 0
/// beyond the vector's end. kCount is at least ceil(rotation.dim / 32).
template <int kCount>
struct LaneVector {
  float numbers[kCount] = {};

  KVAST_HD static int dim(int lane, int at) { return at * kWarp + lane; }
  /// visit(dim, number) of a lane's dimensions below `end`.
  template <class Visit>
  KVAST_HD void each(int lane, int end, const Visit& visit) {
    for (int at = 0; at < kCount; ++at) {
      if (dim(lane, at) < end) visit(dim(lane, at), numbers[at]);
    }
  }

  template <class Warp>
  KVAST_HD void rotate(const Warp& warp, const Rotation& rotation) {
    flip(warp.lane(), rotation);
    transform(warp, rotation.width);
  }
  template <class Warp>
  KVAST_HD void undo(const Warp& warp, const Rotation& rotation) {
    transform(warp, rotation.width);
    flip(warp.lane(), rotation);
  }

 private:
  KVAST_HD void flip(int lane, const Rotation& rotation) {
    for (int at = 0; at < kCount; ++at) {
      const int here = dim(lane, at);
      if (here < rotation.dim && (rotation.signs[here / 64] >> (here % 64) & 1U) != 0)
        numbers[at] = -numbers[at];
    }
  }
  template <class Warp>
  KVAST_HD void transform(const Warp& warp, int width) {
    for (int half = 1; half < kWarp && half < width; half *= 2) {
      for (float& number : numbers) {
        const float other = warp.shuffle_xor(number, half);
        number = (warp.lane() & half) == 0 ? number + other : other - number;
      }
    }
    for (int half = 1; half < kCount; half *= 2) {  // of 32 dimensions
      if (half * kWarp >= width) continue;
      for (int at = 0; at < kCount; ++at) {
        if ((at & half) != 0 || at + half >= kCount) continue;
        const float one = numbers[at];
        numbers[at] = one + numbers[at + half];
        numbers[at + half] = one - numbers[at + half];
      }
    }
    const float factor = divide(1.0F, static_cast<float>(square_root(static_cast<double>(width))));
    for (float& number : numbers) number *= factor;
  }
};

}  // namespace kvast::gpu
