// SPDX-License-Identifier: Apache-2.0
// Numbers for tests: the same on every machine and compiler, which std's distributions are not.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvast::test {

/// A 64-bit mix of its argument (splitmix64).
inline std::uint64_t mix(std::uint64_t bits) {
  bits += 0x9E3779B97F4A7C15U;
  bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
  bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
  return bits ^ (bits >> 31U);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}

  std::uint64_t bits() { return mix(state_++); }
  /// In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11U) * 0x1p-53; }
  int below(int count) { return static_cast<int>(bits() % static_cast<std::uint64_t>(count)); }
  /// In [low, high].
  int between(int low, int high) { return low + below(high - low + 1); }
  bool chance(double probability) { return uniform() < probability; }
  /// N(0, 1), by Box and Muller.
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  std::vector<float> normals(std::size_t count, double spread = 1.0) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = static_cast<float>(spread * normal());
    return numbers;
  }

 private:
  std::uint64_t state_;
};

}  // namespace kvast::test
