// SPDX-License-Identifier: Apache-2.0
// The vector operations for AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kvast/core/half.h"

namespace kvast {
inline namespace avx2 {

struct Simd {
  static constexpr const char* kName = "avx2";
  static constexpr int kLanes = 8;
  static constexpr int kMaxRows = 6;
  /// 16 registers: up to three rows keep all 32 columns, more keep 16 and take two turns.
  static constexpr int vectors(int rows) { return rows <= 3 ? 4 : 2; }

  using F = __m256;
  using I = __m256i;  ///< 8 sums
  using W = __m256i;  ///< 16 words of 16 bits: two rows of 8 columns

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float number) { return _mm256_set1_ps(number); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F a) { _mm256_storeu_ps(to, a); }
  static F load_half(const half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static void store_half(half* to, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
  static F load_bf16(const std::uint16_t* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  /// Eight-bit floats with the bits of their f16 counterpart (see Fp8).
  template <int kMantissa>
  static F load_fp8(const std::uint8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    const __m128i bits = _mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 10 - kMantissa);
    if constexpr (kMantissa == 2) return _mm256_cvtph_ps(bits);
    const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi16(0x3F80));
    const __m128i sign = _mm_and_si128(_mm_add_epi16(bits, bits), _mm_set1_epi16(-0x8000));
    return _mm256_cvtph_ps(_mm_or_si128(magnitude, sign));
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// 2^a for whole a in [-126, 127].
  static F exp2_whole(F a) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  static float reduce_add(F a) {
    __m128 half_sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half_sum = _mm_add_ps(half_sum, _mm_movehl_ps(half_sum, half_sum));
    return _mm_cvtss_f32(_mm_add_ss(half_sum, _mm_shuffle_ps(half_sum, half_sum, 1)));
  }
  static float reduce_max(F a) {
    __m128 half_max = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    half_max = _mm_max_ps(half_max, _mm_movehl_ps(half_max, half_max));
    return _mm_cvtss_f32(_mm_max_ss(half_max, _mm_shuffle_ps(half_max, half_max, 1)));
  }

  // integers
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static I no_sum() { return _mm256_setzero_si256(); }
  /// Rounds to nearest even; numbers must fit.
  static void store_int16(std::int16_t* to, F a) {
    const I whole = _mm256_cvtps_epi32(a);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(to),
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
  }
  static W load_words(const std::uint8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  /// Bits [kField * index, kField * (index + 1)) of each word, kSigned: in two's complement.
  template <int kField, bool kSigned>
  static W field(W a, int index) {
    if constexpr (kSigned) {
      const W top = index == 0 ? _mm256_slli_epi16(a, 8) : a;
      return _mm256_srai_epi16(top, 8);
    }
    return _mm256_and_si256(_mm256_srli_epi16(a, kField * index),
                            _mm256_set1_epi16((1 << kField) - 1));
  }
  /// Adds 4 to each word whose bit is set.
  static W add_fours(W a, const std::uint8_t* bits) {
    std::uint16_t set = 0;
    std::memcpy(&set, bits, sizeof set);
    const W each = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192,
                                     16384, static_cast<short>(-32768));
    const W chosen = _mm256_cmpeq_epi16(
        _mm256_and_si256(_mm256_set1_epi16(static_cast<short>(set)), each), each);
    return _mm256_add_epi16(a, _mm256_and_si256(chosen, _mm256_set1_epi16(4)));
  }
  /// Each word, in [0, 16), becomes its level.
  static W lookup(const std::int8_t* levels, W codes) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels));
    const W low = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
    return _mm256_srai_epi16(_mm256_slli_epi16(low, 8), 8);
  }
  /// sum[lane] += a pair of words times the two numbers of `pair`.
  static I dot(I sum, W words, const std::int16_t* pair) {
    std::int32_t both = 0;
    std::memcpy(&both, pair, sizeof both);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(words, _mm256_set1_epi32(both)));
  }
};

}  // namespace avx2
}  // namespace kvast
