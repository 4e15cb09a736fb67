// SPDX-License-Identifier: Apache-2.0
// The vector operations for AVX-512 (F, BW, DQ, VL).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kvast/core/half.h"

namespace kvast {
inline namespace avx512 {

// GCC 12 warns of uninitialised values inside the plain forms of these intrinsics (its own header's
// doing, bug 105593), so the zero-masked ones are used with a full mask; the code is the same.
struct Simd {
  static constexpr const char* kName = "avx512";
  static constexpr int kLanes = 16;
  static constexpr int kMaxRows = 12;
  static constexpr int vectors(int) { return 2; }

  using F = __m512;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float number) { return _mm512_set1_ps(number); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F a) { _mm512_storeu_ps(to, a); }
  static F load_half(const half* from) {
    return _mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static void store_half(half* to, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_maskz_cvtps_ph(kAll, a, _MM_FROUND_TO_NEAREST_INT));
  }
  static F load_u4(const std::uint8_t* from) {
    std::int32_t codes[2];
    std::memcpy(codes, from, sizeof codes);
    const __m512i both =
        _mm512_mask_set1_epi32(_mm512_set1_epi32(codes[0]), __mmask16{0xFF00}, codes[1]);
    const __m512i shifts =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i shifted = _mm512_maskz_srlv_epi32(kAll, both, shifts);
    return _mm512_maskz_cvtepi32_ps(kAll, _mm512_and_si512(shifted, _mm512_set1_epi32(15)));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_maskz_max_ps(kAll, a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F round(F a) {
    return _mm512_maskz_roundscale_ps(kAll, a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  /// 2^a for whole a in [-126, 127].
  static F exp2_whole(F a) {
    const __m512i exponent =
        _mm512_add_epi32(_mm512_maskz_cvtps_epi32(kAll, a), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, exponent, 23));
  }
  static float reduce_add(F a) {
    const __m256 sums = _mm256_add_ps(eight<0>(a), eight<1>(a));
    __m128 half_sum = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
    half_sum = _mm_add_ps(half_sum, _mm_movehl_ps(half_sum, half_sum));
    return _mm_cvtss_f32(_mm_add_ss(half_sum, _mm_shuffle_ps(half_sum, half_sum, 1)));
  }
  static float reduce_max(F a) {
    const __m256 most = _mm256_max_ps(eight<0>(a), eight<1>(a));
    __m128 half_max = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    half_max = _mm_max_ps(half_max, _mm_movehl_ps(half_max, half_max));
    return _mm_cvtss_f32(_mm_max_ss(half_max, _mm_shuffle_ps(half_max, half_max, 1)));
  }

 private:
  static constexpr __mmask16 kAll = 0xFFFF;
  template <int kHalf>
  static __m256 eight(F a) {
    return _mm512_maskz_extractf32x8_ps(__mmask8{0xFF}, a, kHalf);
  }
};

}  // namespace avx512
}  // namespace kvast
