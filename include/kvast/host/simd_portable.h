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
    std::int16_t word[2 * kLanes];
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
  static F abs(F a) {
    return each([&](int at) { return std::fabs(a.lane[at]); });
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

  // integers
  static F to_float(I a) {
    return each([&](int at) { return static_cast<float>(a.lane[at]); });
  }
  static I no_sum() { return {}; }
  /// Rounds to nearest even; numbers must fit.
  static void store_int16(std::int16_t* to, F a) {
    for (int at = 0; at < kLanes; ++at) {
      const float whole = std::nearbyint(a.lane[at]);
      const bool fits = whole >= -32768.0F && whole <= 32767.0F;  // what is no number does not
      to[at] = static_cast<std::int16_t>(fits ? static_cast<int>(whole) : 0);
    }
  }
  static W load_words(const std::uint8_t* from) {
    W words;
    for (int at = 0; at < 2 * kLanes; ++at)
      words.word[at] = static_cast<std::int16_t>(from[2 * at] | from[2 * at + 1] << 8);
    return words;
  }
  /// Bits [kField * index, kField * (index + 1)) of each word, kSigned: in two's complement.
  template <int kField, bool kSigned>
  static W field(W a, int index) {
    for (std::int16_t& word : a.word) {
      const int bits = static_cast<std::uint16_t>(word) >> kField * index & ((1 << kField) - 1);
      word = static_cast<std::int16_t>(kSigned && bits >= 128 ? bits - 256 : bits);
    }
    return a;
  }
  /// Adds 4 to each word whose bit is set.
  static W add_fours(W a, const std::uint8_t* bits) {
    for (int at = 0; at < 2 * kLanes; ++at)
      a.word[at] = static_cast<std::int16_t>(a.word[at] + (bits[at / 8] >> (at % 8) & 1) * 4);
    return a;
  }
  /// Each word, in [0, 16), becomes its level.
  static W lookup(const std::int8_t* levels, W codes) {
    for (std::int16_t& word : codes.word) word = levels[word];
    return codes;
  }
  /// sum[lane] += a pair of words times the two numbers of `pair`.
  static I dot(I sum, W words, const std::int16_t* pair) {
    for (int at = 0; at < kLanes; ++at)
      sum.lane[at] += words.word[2 * at] * pair[0] + words.word[2 * at + 1] * pair[1];
    return sum;
  }
};

}  // namespace portable
}  // namespace kvast
