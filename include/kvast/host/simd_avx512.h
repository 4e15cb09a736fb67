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
  /// Vectors of columns that `sums` rows of accumulators keep in registers.
  static constexpr int vectors(int sums) { return sums <= 12 ? 2 : 1; }

  using F = __m512;
  using I = __m512i;  ///< 16 sums
  using W = __m512i;  ///< 64 bytes: four rows of 16 columns

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
  static F load_bf16(const std::uint16_t* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(kAll, _mm512_maskz_cvtepu16_epi32(kAll, bits), 16));
  }
  /// Eight-bit floats with the bits of their f16 counterpart (see Fp8).
  template <int kMantissa>
  static F load_fp8(const std::uint8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const __m256i bits = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 10 - kMantissa);
    if constexpr (kMantissa == 2) return _mm512_maskz_cvtph_ps(kAll, bits);
    const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi16(0x3F80));
    const __m256i sign = _mm256_and_si256(_mm256_add_epi16(bits, bits), _mm256_set1_epi16(-0x8000));
    return _mm512_maskz_cvtph_ps(kAll, _mm256_or_si256(magnitude, sign));
  }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_maskz_max_ps(kAll, a, b); }
  /// NaN where either is; by bits, so that -ffast-math keeps the test.
  static F max_or_nan(F a, F b) {
    const auto nan = [](F x) {
      const __m512i magnitude =
          _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
      return _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7F800000));
    };
    return _mm512_mask_mov_ps(_mm512_mask_mov_ps(max(a, b), nan(b), b), nan(a), a);
  }
  /// Of a that is not negative, and any b.
  static F max_magnitude(F a, F b) { return _mm512_maskz_range_ps(kAll, a, b, 0xB); }
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

  /// Each of four vectors.
  static void reduce_add(const F (&a)[4], float* out) {
    reduce_four(a, out, [](auto x, auto y) { return x + y; });
  }
  static void reduce_max(const F (&a)[4], float* out) { reduce_four(a, out, Most{}); }

  // bytes
  static F to_float(I a) { return _mm512_maskz_cvtepi32_ps(kAll, a); }
  static I no_sum() { return _mm512_setzero_si512(); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  /// Rounds to nearest even; numbers must fit.
  static I to_int(F a) { return _mm512_maskz_cvtps_epi32(kAll, a); }
  /// Four vectors after each other; numbers must fit.
  static void store_int8(std::int8_t* to, const I (&a)[4]) {
    const I words = _mm512_packs_epi32(a[0], a[1]);
    const I bytes = _mm512_packs_epi16(words, _mm512_packs_epi32(a[2], a[3]));
    const I order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(kAll, order, bytes));
  }
  static W load_bytes(const void* from) { return _mm512_loadu_si512(from); }
  /// Bits [kBits * index, kBits * (index + 1)) of each byte.
  template <int kBits>
  static W field(W a, int index) {
    if (kBits == 8) return a;
    const W shifted = index == 0 ? a : _mm512_srli_epi16(a, static_cast<unsigned>(kBits * index));
    return _mm512_and_si512(shifted, _mm512_set1_epi8(static_cast<char>((1 << kBits) - 1)));
  }
  /// Adds 4 to each byte whose bit is set.
  static W add_fours(W a, const std::uint8_t* bits) {
    __mmask64 set = 0;
    std::memcpy(&set, bits, sizeof set);
    return _mm512_mask_add_epi8(a, set, a, _mm512_set1_epi8(4));
  }
  /// Each byte, in [0, 16), becomes its level.
  static W lookup(const std::uint8_t* levels, W codes) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels));
    return _mm512_shuffle_epi8(_mm512_maskz_broadcast_i32x4(kAll, table), codes);
  }
  /// sum[lane] += four codes (below 128 where factors reach beyond 64) times four factors.
  static I dot(I sum, W codes, W factors) {
#if defined(__AVX512VNNI__)
    return _mm512_dpbusd_epi32(sum, codes, factors);
#else
    const W pairs = _mm512_maddubs_epi16(codes, factors);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#endif
  }
  /// The same four factors for each lane.
  static W four(const std::int8_t* factors) {
    std::int32_t all = 0;
    std::memcpy(&all, factors, sizeof all);
    return _mm512_set1_epi32(all);
  }

 private:
  struct Most {
    F operator()(F x, F y) const { return max(x, y); }
    __m256 operator()(__m256 x, __m256 y) const { return _mm256_max_ps(x, y); }
    __m128 operator()(__m128 x, __m128 y) const { return _mm_max_ps(x, y); }
  };
  static constexpr __mmask16 kAll = 0xFFFF;
  /// `join` of the sixteen numbers of each, by transposing.
  template <class Join>
  static void reduce_four(const F (&a)[4], float* out, Join join) {
    const F first = join(_mm512_maskz_unpacklo_ps(kAll, a[0], a[1]),
                         _mm512_maskz_unpackhi_ps(kAll, a[0], a[1]));
    const F second = join(_mm512_maskz_unpacklo_ps(kAll, a[2], a[3]),
                          _mm512_maskz_unpackhi_ps(kAll, a[2], a[3]));
    const F all = join(_mm512_maskz_shuffle_ps(kAll, first, second, 0x44),
                       _mm512_maskz_shuffle_ps(kAll, first, second, 0xEE));
    const __m256 eights = join(eight<0>(all), eight<1>(all));
    _mm_storeu_ps(out, join(_mm256_castps256_ps128(eights), _mm256_extractf128_ps(eights, 1)));
  }
  template <int kHalf>
  static __m256 eight(F a) {
    return _mm512_maskz_extractf32x8_ps(__mmask8{0xFF}, a, kHalf);
  }
};

}  // namespace avx512
}  // namespace kvast
