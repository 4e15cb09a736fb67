// SPDX-License-Identifier: Apache-2.0
// reconstruct: a block's keys out of their basis, each rotated to its own position.
#pragma once

#include <algorithm>

#include "kvast/core/rope_levels.h"
#include "kvast/host/layer_plan.h"

namespace kvast {

/// Writes `keys` [head_dim, 32], aligned to 64 bytes, as the model would have given them after its
/// rotation: the matrix of the basis times the block's coordinates, by the product that attention
/// uses, then a rotation per slot. What slots without a live token get is finite and means nothing.
/// `ahead` is read next.
template <class Simd>
void reconstruct_keys(const LayerPlan& plan, int head, const Block& block, bool coded,
                      const RopeLevels& rope, const std::byte* ahead, float* keys) {
  using F = typename Simd::F;
  const int dim = plan.shape.head_dim;
  const int rank = plan.key_width();
  std::fill_n(keys, dim * kBlockTokens, 0.0F);
  plan.key_codec(coded).multiply(plan.key_basis.matrix(head), rank, dim, rank, block.keys,
                                 kBlockTokens, keys, kBlockTokens, ahead, {});
  alignas(64) float lines[512 * kBlockTokens];
  rope.lines_of(block.position, block.used, lines);
  const int pairs = rope.pairs();
  const int step = rope.rope().pairing == Pairing::halves ? 1 : 2;
  const int apart = rope.rope().pairing == Pairing::halves ? pairs : 1;
  for (int pair = 0; pair < pairs; ++pair) {
    float* first = keys + pair * step * kBlockTokens;
    float* second = first + apart * kBlockTokens;
    const float* cosines = lines + pair * 2 * kBlockTokens;
    for (int at = 0; at < kBlockTokens; at += Simd::kLanes) {
      const F cosine = Simd::load(cosines + at);
      const F sine = Simd::load(cosines + kBlockTokens + at);
      const F one = Simd::load(first + at);
      const F two = Simd::load(second + at);
      Simd::store(first + at, Simd::sub(Simd::mul(one, cosine), Simd::mul(two, sine)));
      Simd::store(second + at, Simd::fma(one, sine, Simd::mul(two, cosine)));
    }
  }
}

}  // namespace kvast
