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
  static F load_u4(const std::uint8_t* from) {
    std::int32_t codes = 0;
    std::memcpy(&codes, from, sizeof codes);
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i shifted = _mm256_srlv_epi32(_mm256_set1_epi32(codes), shifts);
    return _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(15)));
  }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
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
};

}  // namespace avx2
}  // namespace kvast
