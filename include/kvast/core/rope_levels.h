// SPDX-License-Identifier: Apache-2.0
// Rotation to positions anywhere in a sequence, from small tables (Positions::unrotated).
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "kvast/core/rope.h"
#include "kvast/core/shape.h"

namespace kvast {

/// A position is the sum of a multiple of 2^15, one of 32, and a rest below 32, and angles add up:
/// three tables of at most 2^15 entries reach 2^30 positions. The tables are made in double; a sum
/// costs a complex product per pair. `grow` first; reading is thread-safe.
class RopeLevels {
 public:
  RopeLevels() = default;
  explicit RopeLevels(Rope rope) : rope_(std::move(rope)) {}

  bool empty() const { return rope_.empty(); }
  int pairs() const { return rope_.width / 2; }
  const Rope& rope() const { return rope_; }

  /// Makes positions in [0, newest] usable.
  void grow(int newest) {
    if (empty()) return;
    extend(rests_, kBlockTokens, 1);
    if (rest_lines_.empty()) {
      rest_lines_.resize(rests_.size());
      for (int rest = 0; rest < kBlockTokens; ++rest) {
        for (int at = 0; at < rope_.width; ++at)
          rest_lines_[static_cast<std::size_t>(at * kBlockTokens + rest)] =
              rests_[static_cast<std::size_t>(rest * rope_.width + at)];
      }
    }
    extend(blocks_, std::min(newest / kBlockTokens + 1, kFar / kBlockTokens), kBlockTokens);
    extend(far_, newest / kFar + 1, kFar);
  }

  /// Turns `vector` (head_dim floats, in place) to `position`.
  void rotate(float* vector, int position) const {
    float angles[kMostWidth];
    angles_of(position, angles);
    turn(rope_, angles, rope_.scale, rope_.scale, vector);
  }
  /// Turns it back.
  void undo(float* vector, int position) const {
    float angles[kMostWidth];
    angles_of(position, angles);
    turn(rope_, angles, -1.0F / rope_.scale, 1.0F / rope_.scale, vector);
  }

  /// Cosines and sines, times the scale, of 32 positions: `lines` is [pairs, (cosine, sine), 32].
  void lines_of(const int* positions, int used, float* lines) const {
    float start[kMostWidth];
    const int first = positions[0] / kBlockTokens * kBlockTokens;
    bool in_order = positions[0] == first;
    for (int slot = 1; slot < used; ++slot) in_order = in_order && positions[slot] == first + slot;
    if (in_order) {  // a block of tokens as they came
      start_of(first, start);
      for (int pair = 0; pair < pairs(); ++pair) {
        const float cosine = start[2 * pair] * rope_.scale;
        const float sine = start[2 * pair + 1] * rope_.scale;
        const float* rest = rest_lines_.data() + pair * 2 * kBlockTokens;
        float* line = lines + pair * 2 * kBlockTokens;
        for (int slot = 0; slot < kBlockTokens; ++slot)
          line[slot] = cosine * rest[slot] - sine * rest[kBlockTokens + slot];
        for (int slot = 0; slot < kBlockTokens; ++slot)
          line[kBlockTokens + slot] = sine * rest[slot] + cosine * rest[kBlockTokens + slot];
      }
      return;
    }
    int last = -1;
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      const int block = positions[slot] / kBlockTokens * kBlockTokens;
      if (block != last) start_of(block, start);
      last = block;
      const float* rest = rests_.data() + (positions[slot] - block) * rope_.width;
      for (int pair = 0; pair < pairs(); ++pair) {
        const float cosine = start[2 * pair] * rope_.scale;
        const float sine = start[2 * pair + 1] * rope_.scale;
        float* line = lines + pair * 2 * kBlockTokens + slot;
        line[0] = cosine * rest[2 * pair] - sine * rest[2 * pair + 1];
        line[kBlockTokens] = sine * rest[2 * pair] + cosine * rest[2 * pair + 1];
      }
    }
  }

 private:
  static constexpr int kFar = 1 << 15;
  static constexpr int kMostWidth = 512;

  /// Entries for 0, step, 2 * step, ... up to `count` of them.
  void extend(std::vector<float>& table, int count, int step) const {
    const auto width = static_cast<std::size_t>(rope_.width);
    for (auto entry = static_cast<int>(table.size() / width); entry < count; ++entry) {
      table.resize(table.size() + width);
      angles_at(rope_, entry * step, table.data() + table.size() - width);
    }
  }
  /// Of one angle and another: of their sum.
  void add(const float* one, const float* other, float* sum) const {
    for (int pair = 0; pair < pairs(); ++pair) {
      sum[2 * pair] = other[2 * pair];
      sum[2 * pair + 1] = other[2 * pair + 1];
      turn_pair(sum[2 * pair], sum[2 * pair + 1], one[2 * pair], one[2 * pair + 1]);
    }
  }
  /// Of a multiple of 32.
  void start_of(int position, float* angles) const {
    const float* block = blocks_.data() + position % kFar / kBlockTokens * rope_.width;
    if (position < kFar) {
      std::copy_n(block, rope_.width, angles);
    } else {
      add(far_.data() + position / kFar * rope_.width, block, angles);
    }
  }
  void angles_of(int position, float* angles) const {
    float start[kMostWidth];
    const int rest = position % kBlockTokens;
    start_of(position - rest, start);
    add(start, rests_.data() + rest * rope_.width, angles);
  }

  Rope rope_;
  // [entries, pairs, (cosine, sine)]
  std::vector<float> rests_;       ///< 0 to 31
  std::vector<float> blocks_;      ///< multiples of 32
  std::vector<float> far_;         ///< multiples of 2^15
  std::vector<float> rest_lines_;  ///< `rests_` as [pairs, (cosine, sine), 32]
};

}  // namespace kvast
