// SPDX-License-Identifier: Apache-2.0
// The few vector operations that the host verbs are written in, as plain loops for any machine.
#pragma once

#include <cmath>
#include <cstdint>

#include "kvast/core/half.h"

namespace kvast {
inline namespace portable {

struct Simd {
  static constexpr const char* kName = "portable";
  static constexpr int kLanes = 4;
  static constexpr int kMaxRows = 4;  ///< rows of a product that fit into registers beside the rest
  static constexpr int vectors(int) { return 4; }  ///< accumulators per row

  struct F {
    float lane[kLanes];
  };

  template <class Body>
  static F each(Body body) {
    F result;
    for (int at = 0; at < kLanes; ++at) result.lane[at] = body(at);
    return result;
  }
  static F zero() { return set1(0.0F); }
  static F set1(float number) {
    return each([=](int) { return number; });
  }
  static F load(const float* from) {
    return each([=](int at) { return from[at]; });
  }
  static void store(float* to, F a) {
    for (int at = 0; at < kLanes; ++at) to[at] = a.lane[at];
  }
  static F load_half(const half* from) {
    return each([=](int at) { return to_float(from[at]); });
  }
  static void store_half(half* to, F a) {
    for (int at = 0; at < kLanes; ++at) to[at] = to_half(a.lane[at]);
  }
  static F load_u4(const std::uint8_t* from) {
    return each([=](int at) { return static_cast<float>(from[at / 2] >> (at % 2 * 4) & 15); });
  }
  static F add(F a, F b) {
    return each([&](int at) { return a.lane[at] + b.lane[at]; });
  }
  static F sub(F a, F b) {
    return each([&](int at) { return a.lane[at] - b.lane[at]; });
  }
  static F mul(F a, F b) {
    return each([&](int at) { return a.lane[at] * b.lane[at]; });
  }
  static F div(F a, F b) {
    return each([&](int at) { return a.lane[at] / b.lane[at]; });
  }
  static F max(F a, F b) {
    return each([&](int at) { return a.lane[at] > b.lane[at] ? a.lane[at] : b.lane[at]; });
  }
  static F fma(F a, F b, F c) {
    return each([&](int at) { return a.lane[at] * b.lane[at] + c.lane[at]; });
  }
  static F round(F a) {
    return each([&](int at) { return std::nearbyint(a.lane[at]); });
  }
  /// 2^a for whole a in [-126, 127].
  static F exp2_whole(F a) {
    return each([&](int at) {
      const auto exponent = static_cast<std::uint32_t>(static_cast<int>(a.lane[at]) + 127);
      return std::bit_cast<float>(exponent << 23U);
    });
  }
  static float reduce_add(F a) { return (a.lane[0] + a.lane[1]) + (a.lane[2] + a.lane[3]); }
  static float reduce_max(F a) {
    const F b = max(a, F{{a.lane[2], a.lane[3], a.lane[0], a.lane[1]}});
    return b.lane[0] > b.lane[1] ? b.lane[0] : b.lane[1];
  }
};

}  // namespace portable
}  // namespace kvast
