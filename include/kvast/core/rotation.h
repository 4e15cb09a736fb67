// SPDX-License-Identifier: Apache-2.0
// A seeded rotation that spreads what one channel has over all of them.
#pragma once

#include <cmath>
#include <cstdint>

#include "kvast/core/random.h"

namespace kvast {

/// Randomised Hadamard transform: signs, then H / sqrt(width) on each block of `width` numbers,
/// the largest power of two that divides the dimension. Orthogonal, so products of rotated vectors
/// are those of the vectors. Ref: QuaRot, arXiv:2404.00456, §3; TurboQuant, arXiv:2504.19874.
struct Rotation {
  int dim = 0;  ///< at most 512; 0: none
  int width = 1;
  std::uint64_t signs[8] = {};  ///< set: the number changes its sign

  static Rotation of(int dim, std::uint64_t seed) {
    Rotation rotation{.dim = dim, .width = dim & -dim};
    for (int at = 0; at < dim; ++at)
      rotation.signs[at / 64] |=
          static_cast<std::uint64_t>(mix_bits(seed, {static_cast<std::uint32_t>(at)}) >> 31U)
          << (at % 64);
    return rotation;
  }
  friend bool operator==(const Rotation&, const Rotation&) = default;

  void apply(float* numbers) const {
    flip(numbers);
    transform(numbers);
  }
  void undo(float* numbers) const {
    transform(numbers);
    flip(numbers);
  }

 private:
  void flip(float* numbers) const {
    for (int at = 0; at < dim; ++at)
      if ((signs[at / 64] >> (at % 64) & 1U) != 0) numbers[at] = -numbers[at];
  }
  /// Its own inverse.
  void transform(float* numbers) const {
    const float factor = 1.0F / std::sqrt(static_cast<float>(width));
    for (int block = 0; block < dim; block += width) {
      float* here = numbers + block;
      for (int half = 1; half < width; half *= 2) {
        for (int first = 0; first < width; first += 2 * half) {
          for (int at = first; at < first + half; ++at) {
            const float one = here[at];
            const float other = here[at + half];
            here[at] = one + other;
            here[at + half] = one - other;
          }
        }
      }
      for (int at = 0; at < width; ++at) here[at] *= factor;
    }
  }
};

}  // namespace kvast
