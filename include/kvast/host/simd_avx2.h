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
  /// Vectors of columns that `sums` rows of accumulators keep in 16 registers.
  static constexpr int vectors(int sums) { return sums <= 3 ? 4 : sums <= 6 ? 2 : 1; }

  using F = __m256;
  using I = __m256i;  ///< 8 sums
  using W = __m256i;  ///< 32 bytes: four rows of 8 columns

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
  /// NaN where either is; by bits, so that -ffast-math keeps the test.
  static F max_or_nan(F a, F b) {
    const auto nan = [](F x) {
      const __m256i magnitude =
          _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFFFF));
      return _mm256_castsi256_ps(_mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000)));
    };
    return _mm256_blendv_ps(_mm256_blendv_ps(max(a, b), b, nan(b)), a, nan(a));
  }
  /// Of a that is not negative, and any b.
  static F max_magnitude(F a, F b) { return max(a, _mm256_andnot_ps(_mm256_set1_ps(-0.0F), b)); }
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

  /// Each of four vectors.
  static void reduce_add(const F (&a)[4], float* out) {
    reduce_four(a, out, [](auto x, auto y) { return x + y; });
  }
  static void reduce_max(const F (&a)[4], float* out) { reduce_four(a, out, Most{}); }

  // bytes
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static I no_sum() { return _mm256_setzero_si256(); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  /// Rounds to nearest even; numbers must fit.
  static I to_int(F a) { return _mm256_cvtps_epi32(a); }
  /// Four vectors after each other; numbers must fit.
  static void store_int8(std::int8_t* to, const I (&a)[4]) {
    const I words = _mm256_packs_epi32(a[0], a[1]);
    const I bytes = _mm256_packs_epi16(words, _mm256_packs_epi32(a[2], a[3]));
    const I order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(bytes, order));
  }
  static W load_bytes(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  /// Bits [kBits * index, kBits * (index + 1)) of each byte.
  template <int kBits>
  static W field(W a, int index) {
    if (kBits == 8) return a;
    const W shifted = index == 0 ? a : _mm256_srli_epi16(a, kBits * index);
    return _mm256_and_si256(shifted, _mm256_set1_epi8(static_cast<char>((1 << kBits) - 1)));
  }
  /// Adds 4 to each byte whose bit is set.
  static W add_fours(W a, const std::uint8_t* bits) {
    std::int32_t set = 0;
    std::memcpy(&set, bits, sizeof set);
    const W places =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const W spread = _mm256_shuffle_epi8(_mm256_set1_epi32(set), places);
    const W each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201U));
    const W chosen = _mm256_cmpeq_epi8(_mm256_and_si256(spread, each), each);
    return _mm256_add_epi8(a, _mm256_and_si256(chosen, _mm256_set1_epi8(4)));
  }
  /// Each byte, in [0, 16), becomes its level.
  static W lookup(const std::uint8_t* levels, W codes) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(levels));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
  }
  /// sum[lane] += four codes (below 128 where factors reach beyond 64) times four factors.
  static I dot(I sum, W codes, W factors) {
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sum, codes, factors);
#else
    const W pairs = _mm256_maddubs_epi16(codes, factors);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
  }
  /// The same four factors for each lane.
  static W four(const std::int8_t* factors) {
    std::int32_t all = 0;
    std::memcpy(&all, factors, sizeof all);
    return _mm256_set1_epi32(all);
  }

 private:
  struct Most {
    F operator()(F x, F y) const { return max(x, y); }
    __m128 operator()(__m128 x, __m128 y) const { return _mm_max_ps(x, y); }
  };
  /// `join` of the eight numbers of each, by transposing.
  template <class Join>
  static void reduce_four(const F (&a)[4], float* out, Join join) {
    const F first = join(_mm256_unpacklo_ps(a[0], a[1]), _mm256_unpackhi_ps(a[0], a[1]));
    const F second = join(_mm256_unpacklo_ps(a[2], a[3]), _mm256_unpackhi_ps(a[2], a[3]));
    const F all =
        join(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xEE));
    _mm_storeu_ps(out, join(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
  }
};

}  // namespace avx2
}  // namespace kvast
