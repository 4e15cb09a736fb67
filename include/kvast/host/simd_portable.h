// SPDX-License-Identifier: Apache-2.0
// The few vector operations that the host verbs are written in, as plain loops for any machine.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

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
  struct I {
    std::int32_t lane[kLanes];
  };
  struct W {
    std::uint8_t byte[4 * kLanes];  ///< four rows of kLanes columns
  };

  template <class Body>
  static F each(Body body) {
    F result;
    for (int at = 0; at < kLanes; ++at) result.lane[at] = body(at);
    return result;
  }
  template <class Body>
  static W each_byte(Body body) {
    W result;
    for (int at = 0; at < 4 * kLanes; ++at) result.byte[at] = static_cast<std::uint8_t>(body(at));
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
    return each([=](int at) { return kvast::to_float(from[at]); });
  }
  static void store_half(half* to, F a) {
    for (int at = 0; at < kLanes; ++at) to[at] = to_half(a.lane[at]);
  }
  static F load_bf16(const std::uint16_t* from) {
    return each(
        [=](int at) { return std::bit_cast<float>(static_cast<std::uint32_t>(from[at]) << 16U); });
  }
  /// Eight-bit floats with the bits of their f16 counterpart (see Fp8).
  template <int kMantissa>
  static F load_fp8(const std::uint8_t* from) {
    return each([=](int at) {
      const unsigned sign = (from[at] & 0x80U) << 8U;
      const unsigned magnitude = (from[at] & 0x7FU) << (10 - kMantissa);
      return kvast::to_float(half{static_cast<std::uint16_t>(sign | magnitude)});
    });
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
  /// NaN where either is; by bits, so that -ffast-math keeps the test.
  static F max_or_nan(F a, F b) {
    const F most = max(a, b);
    const auto nan = [](float lane) {
      return (std::bit_cast<std::uint32_t>(lane) & 0x7FFFFFFFU) > 0x7F800000U;
    };
    return each([&](int at) {
      return nan(a.lane[at]) ? a.lane[at] : nan(b.lane[at]) ? b.lane[at] : most.lane[at];
    });
  }
  /// Of a that is not negative, and any b.
  static F max_magnitude(F a, F b) {
    return max(a, each([&](int at) { return std::fabs(b.lane[at]); }));
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

  /// Each of four vectors.
  static void reduce_add(const F (&a)[4], float* out) {
    for (int at = 0; at < 4; ++at) out[at] = reduce_add(a[at]);
  }
  static void reduce_max(const F (&a)[4], float* out) {
    for (int at = 0; at < 4; ++at) out[at] = reduce_max(a[at]);
  }

  // bytes
  static F to_float(I a) {
    return each([&](int at) { return static_cast<float>(a.lane[at]); });
  }
  static I no_sum() { return {}; }
  static I add(I a, I b) {
    for (int at = 0; at < kLanes; ++at) a.lane[at] += b.lane[at];
    return a;
  }
  /// Rounds to nearest even; numbers must fit.
  static I to_int(F a) {
    I whole;
    for (int at = 0; at < kLanes; ++at) {
      const float number = std::nearbyint(a.lane[at]);
      const bool fits = number >= -32768.0F && number <= 32767.0F;  // what is no number does not
      whole.lane[at] = fits ? static_cast<std::int32_t>(number) : 0;
    }
    return whole;
  }
  /// Four vectors after each other; numbers must fit.
  static void store_int8(std::int8_t* to, const I (&a)[4]) {
    for (int at = 0; at < 4 * kLanes; ++at)
      to[at] = static_cast<std::int8_t>(a[at / kLanes].lane[at % kLanes]);
  }
  static W load_bytes(const void* from) {
    W bytes;
    std::memcpy(bytes.byte, from, sizeof bytes.byte);
    return bytes;
  }
  /// Bits [kBits * index, kBits * (index + 1)) of each byte.
  template <int kBits>
  static W field(W a, int index) {
    return each_byte([&](int at) { return a.byte[at] >> kBits * index & ((1 << kBits) - 1); });
  }
  /// Adds 4 to each byte whose bit is set.
  static W add_fours(W a, const std::uint8_t* bits) {
    return each_byte([&](int at) { return a.byte[at] + (bits[at / 8] >> (at % 8) & 1) * 4; });
  }
  /// Each byte, in [0, 16), becomes its level.
  static W lookup(const std::uint8_t* levels, W codes) {
    return each_byte([&](int at) { return levels[codes.byte[at]]; });
  }
  /// sum[lane] += four codes (below 128 where factors reach beyond 64) times four factors.
  static I dot(I sum, W codes, W factors) {
    for (int at = 0; at < 4 * kLanes; ++at)
      sum.lane[at / 4] += codes.byte[at] * static_cast<std::int8_t>(factors.byte[at]);
    return sum;
  }
  /// The same four factors for each lane.
  static W four(const std::int8_t* factors) {
    return each_byte([&](int at) { return factors[at % 4]; });
  }
};

}  // namespace portable
}  // namespace kvast
