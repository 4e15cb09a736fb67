// SPDX-License-Identifier: Apache-2.0
// The softmax between attention's two products, as it goes from block to block: logits, what hides
// them, and weights relative to the greatest logit so far. All in powers of two.
#pragma once

#include <cmath>

#include "kvast/gpu/attend_products.cuh"

namespace kvast::gpu {

inline constexpr float kHiddenLogit = -3.0e+38F;  ///< of what a query must not see
inline constexpr float kLog2OfE = 1.44269504F;
inline constexpr float kLogOf2 = 0.69314718F;

/// 2^number, to about 2 units in the last place; numbers below -126 give 0 on the device.
KVAST_HD inline float power_of_two(float number) {
#if defined(__CUDA_ARCH__)
  float power = 0.0F;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(number));
  return power;
#else
  return std::exp2(number);
#endif
}

/// Of a normal number, to about 2^-22.
KVAST_HD inline float log_of_two(float number) {
#if defined(__CUDA_ARCH__)
  float power = 0.0F;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(number));
  return power;
#else
  return std::log2(number);
#endif
}

/// What becomes of q.k before the softmax; made on the host.
struct LogitRules {
  float factor = 1.0F;  ///< scale * log2(e), or with a cap 2 * scale * log2(e) / softcap
  float cap = 0.0F;     ///< softcap * log2(e); 0: none
  static LogitRules of(float scale, float softcap) {
    if (softcap > 0.0F)
      return {.factor = 2.0F * scale * kLog2OfE / softcap, .cap = softcap * kLog2OfE};
    return {.factor = scale * kLog2OfE};
  }
  /// `of_row`: `factor`, and what the row's query was divided by.
  KVAST_HD float logit(float product, float of_row) const {
    if (cap == 0.0F) return product * of_row;
    // tanh(x) = 1 - 2 / (e^2x + 1); e^2x is kept finite
    const float power = power_of_two(least_of(product * of_row, 115.0F));
    return cap * (1.0F - 2.0F / (power + 1.0F));
  }
};

/// The softmax of a lane's rows.
template <int kTiles>
struct RowStates {
  static constexpr int kMine = 2 * kTiles;
  float maximum[kMine];
  float sum[kMine];  ///< over this lane's tokens alone

  KVAST_HD RowStates() {
    for (int row = 0; row < kMine; ++row) {
      maximum[row] = kHiddenLogit;
      sum[row] = 0.0F;
    }
  }

  /// Logits of a block become weights 2^(logit - maximum), and `sums` are brought to the same
  /// maximum. visible(row, token) of the lane's own rows and tokens.
  template <class Warp, int kSums, class Visible>
  KVAST_HD void soften(const Warp& warp, float (&logits)[kTiles][kTileScores],
                       float (&sums)[kTiles][kSums], const Visible& visible) {
    float shrink[kMine];
    bool grows = false;
    for (int row = 0; row < kMine; ++row) {
      float* mine = logits[row / 2] + row % 2;
      float most = kHiddenLogit;
      for (int token = 0; token < 4; ++token) {
        if (!visible(row, token)) mine[2 * token] = kHiddenLogit;
        most = most_of(most, mine[2 * token]);
      }
      for (int mask = 4; mask < kWarp; mask *= 2)
        most = most_of(most, warp.shuffle_xor(most, mask));
      shrink[row] = 1.0F;
      if (most > maximum[row]) {
        shrink[row] = power_of_two(maximum[row] - most);
        maximum[row] = most;
        grows = true;
      }
      sum[row] *= shrink[row];
      for (int token = 0; token < 4; ++token) {
        const float weight = power_of_two(mine[2 * token] - maximum[row]);
        mine[2 * token] = visible(row, token) ? weight : 0.0F;
        sum[row] += mine[2 * token];
      }
    }
    if (warp.ballot(grows) == 0) return;
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int at = 0; at < kSums; ++at) sums[tile][at] *= shrink[2 * tile + at % 2];
    }
  }

  /// Sums over all tokens of the warp.
  template <class Warp>
  KVAST_HD void finish(const Warp& warp) {
    for (int row = 0; row < kMine; ++row) {
      for (int mask = 4; mask < kWarp; mask *= 2) sum[row] += warp.shuffle_xor(sum[row], mask);
    }
  }
};

}  // namespace kvast::gpu
