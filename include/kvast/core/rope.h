// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, for caches that rotate by the place in the cache
// (Positions::compacted).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "kvast/core/error.h"
#include "kvast/core/host_device.h"

namespace kvast {

/// Which features a rotation turns together.
enum class Pairing : std::uint8_t {
  halves,      ///< dim and dim + width / 2 (GPT-NeoX, Hugging Face Llama)
  interleaved  ///< dim and dim + 1 (original Llama, GGUF Llama)
};

/// Ref: RoFormer, arXiv:2104.09864. Angle of pair p at position t: t * inverse_frequencies[p].
struct Rope {
  std::vector<float> inverse_frequencies;  ///< width / 2 of them
  int width = 0;  ///< leading features that rotate; the rest passes through
  Pairing pairing = Pairing::halves;
  float scale = 1.0F;  ///< factor on the rotated features (YaRN's attention factor)

  friend bool operator==(const Rope&, const Rope&) = default;

  /// Plain RoPE: inverse frequency of pair p is base^(-2p / width).
  static Rope plain(int width, double base, Pairing pairing) {
    Rope rope{.inverse_frequencies = {}, .width = width, .pairing = pairing};
    for (int pair = 0; pair < width / 2; ++pair) {
      rope.inverse_frequencies.push_back(static_cast<float>(std::pow(base, -2.0 * pair / width)));
    }
    return rope;
  }

  bool empty() const { return width == 0; }

  void validate(int head_dim, Caller caller) const {
    require(width >= 2 && width % 2 == 0 && width <= head_dim, caller, "rope.width is ", width,
            ", must be even and in [2, head_dim = ", head_dim, "]");
    require(static_cast<int>(inverse_frequencies.size()) == width / 2, caller,
            "rope.inverse_frequencies has ", inverse_frequencies.size(),
            " entries, must have rope.width / 2 = ", width / 2);
    for (const float frequency : inverse_frequencies) {
      require(std::isfinite(frequency), caller, "rope.inverse_frequencies holds ", frequency,
              ", must be finite");
    }
    require(std::isfinite(scale) && scale > 0.0F, caller, "rope.scale is ", scale,
            ", must be finite and positive");
  }
};

/// Cosine and sine of every pair at a position: `angles` is [pairs, 2]. Taken in double: in float
/// they are off by 1e-3 at position 1e4.
inline void angles_at(const Rope& rope, int position, float* angles) {
  for (const float frequency : rope.inverse_frequencies) {
    const double angle = static_cast<double>(position) * static_cast<double>(frequency);
    *angles++ = static_cast<float>(std::cos(angle));
    *angles++ = static_cast<float>(std::sin(angle));
  }
}

/// Turns a pair of features. In double each product is exact, so that compilers that contract
/// products and sums and those that do not find the same bits: keys are encoded after it.
KVAST_HD inline void turn_pair(float& first, float& second, float cosine, float sine) {
  const double one = static_cast<double>(first);
  const double two = static_cast<double>(second);
  first = static_cast<float>(one * static_cast<double>(cosine) - two * static_cast<double>(sine));
  second = static_cast<float>(one * static_cast<double>(sine) + two * static_cast<double>(cosine));
}

/// Turns `vector` (head_dim floats, in place) by `angles`; sines and cosines are multiplied first.
inline void turn(const Rope& rope, const float* angles, float sines, float cosines, float* vector) {
  const int pairs = rope.width / 2;
  const int step = rope.pairing == Pairing::halves ? 1 : 2;
  const int apart = rope.pairing == Pairing::halves ? pairs : 1;
  for (int pair = 0; pair < pairs; ++pair) {
    turn_pair(vector[pair * step], vector[pair * step + apart], angles[2 * pair] * cosines,
              angles[2 * pair + 1] * sines);
  }
}

/// Sines and cosines of the positions in use, so that a step computes none. Grows; reading is
/// thread-safe.
class RopeTable {
 public:
  RopeTable() = default;
  explicit RopeTable(Rope rope) : rope_(std::move(rope)) {}

  bool empty() const { return rope_.empty(); }
  float scale() const { return rope_.scale; }
  const Rope& rope() const { return rope_; }

  /// Makes positions in (-count, count) usable.
  void grow(int count) {
    if (empty()) return;
    const auto width = static_cast<std::size_t>(rope_.width);
    for (; positions_ < count; ++positions_) {
      table_.resize(table_.size() + width);
      angles_at(rope_, positions_, table_.data() + table_.size() - width);
    }
  }

  /// Turns `vector` (head_dim floats, in place) to `position`, which may be negative.
  void rotate(float* vector, int position) const {
    const float* angles = table_.data() + static_cast<std::size_t>(std::abs(position)) *
                                              static_cast<std::size_t>(rope_.width);
    turn(rope_, angles, position < 0 ? -rope_.scale : rope_.scale, rope_.scale, vector);
  }

 private:
  Rope rope_;
  std::vector<float> table_;  // [positions, pairs, (cosine, sine)]
  int positions_ = 0;
};

}  // namespace kvast
