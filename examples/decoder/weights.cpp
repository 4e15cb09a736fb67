// SPDX-License-Identifier: Apache-2.0
// De-quantisation of weight rows, and their products with one vector.
#include "examples/decoder/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kvast/core/half.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#endif

namespace kvast::decoder {
namespace {

/// One block of 32 codes: number = scale * code + minimum.
struct Affine {
  float scale;
  float minimum;
};

float read_half(const std::byte* from) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
#if defined(__F16C__)
  return _cvtsh_ss(bits);
#else
  return to_float(half{bits});
#endif
}

/// Where a type's codes begin in its block, and what they mean. Q4 codes are unsigned, Q8 codes
/// signed.
template <TensorType kType>
struct Codes {
  static constexpr bool kNibbles = kType != TensorType::q8_0;
  static constexpr int kOffset = kType == TensorType::q4_1 ? 4 : 2;
  static constexpr int kBytes = kOffset + (kNibbles ? 16 : 32);

  static Affine affine(const std::byte* block) {
    const float scale = read_half(block);
    if constexpr (kType == TensorType::q4_1) return {scale, read_half(block + 2)};
    return {scale, kNibbles ? -8.0F * scale : 0.0F};
  }

  static void unpack(const std::byte* block, std::int8_t* codes) {
    const std::byte* from = block + kOffset;
    if constexpr (kNibbles) {
      for (int code = 0; code < 16; ++code) {
        codes[code] = static_cast<std::int8_t>(from[code] & std::byte{15});
        codes[code + 16] = static_cast<std::int8_t>(from[code] >> 4U);
      }
    } else {
      std::memcpy(codes, from, kBlock);
    }
  }
};

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

template <class Format>
__m256i load_codes(const std::byte* block) {
  const std::byte* from = block + Format::kOffset;
  if constexpr (Format::kNibbles) {
    const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(packed, 4), packed),
                            _mm256_set1_epi8(15));
  } else {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
}

template <class Format>
void dequantize_block(const std::byte* block, float* output) {
  const Affine affine = Format::affine(block);
  const __m256i codes = load_codes<Format>(block);
  const __m256 scale = _mm256_set1_ps(affine.scale);
  const __m256 minimum = _mm256_set1_ps(affine.minimum);
  const __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
  for (int quarter = 0; quarter < 4; ++quarter) {
    const __m128i eight =
        quarter % 2 == 0 ? halves[quarter / 2] : _mm_srli_si128(halves[quarter / 2], 8);
    const __m256 numbers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
    _mm256_storeu_ps(output + 8 * quarter, _mm256_fmadd_ps(scale, numbers, minimum));
  }
}

#else

template <class Format>
void dequantize_block(const std::byte* block, float* output) {
  std::int8_t codes[kBlock];
  Format::unpack(block, codes);
  const Affine affine = Format::affine(block);
  for (int code = 0; code < kBlock; ++code) {
    output[code] = affine.scale * static_cast<float>(codes[code]) + affine.minimum;
  }
}

#endif

void widen_halves(const std::byte* from, int count, float* output) {
  int index = 0;
#if defined(__F16C__) && defined(__AVX__)
  for (; index + 8 <= count; index += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * index));
    _mm256_storeu_ps(output + index, _mm256_cvtph_ps(halves));
  }
#endif
  for (; index < count; ++index) output[index] = read_half(from + 2 * index);
}

/// Calls `body` with the blocked type as a template argument.
template <class Body>
void with_codes(TensorType type, Body body) {
  if (type == TensorType::q4_0) return body(Codes<TensorType::q4_0>{});
  if (type == TensorType::q4_1) return body(Codes<TensorType::q4_1>{});
  body(Codes<TensorType::q8_0>{});
}

template <class Format>
float multiply_row_portable(const std::byte* from, const IntegerVector& vector) {
  float product = 0.0F;
  for (int block = 0; block < vector.blocks(); ++block, from += Format::kBytes) {
    std::int8_t codes[kBlock];
    Format::unpack(from, codes);
    std::int32_t sum = 0;
    for (int code = 0; code < kBlock; ++code) {
      const auto at = static_cast<std::size_t>(block * kBlock + code);
      sum += codes[code] * (128 * vector.high[at] + vector.low[at]);
    }
    const auto index = static_cast<std::size_t>(block);
    const Affine affine = Format::affine(from);
    product += affine.scale * vector.scales[index] * static_cast<float>(sum);
    product += affine.minimum * vector.sums[index];
  }
  return product;
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

/// sums + 8 sums of 4 products of unsigned with signed bytes. Without VNNI pairs are summed in 16
/// bits: no overflow, as 2 * 128 * 127 fits.
__m256i add_products(__m256i sums, __m256i unsigned_codes, __m256i signed_codes) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sums, unsigned_codes, signed_codes);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sums, unsigned_codes, signed_codes);
#else
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_codes, signed_codes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

/// The scale in lane 0 and the minimum in lane 1: one conversion for both.
template <class Format>
__m128 load_affine(const std::byte* block) {
  std::uint32_t halves = 0;
  std::memcpy(&halves, block, Format::kOffset);
  const __m128 numbers = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(halves)));
  if constexpr (Format::kOffset == 4 || !Format::kNibbles) return numbers;
  return _mm_mul_ps(_mm_moveldup_ps(numbers), _mm_setr_ps(1.0F, -8.0F, 0.0F, 0.0F));
}

/// Sums of codes * (128 * high + low). Signed codes give their sign to the other factor first; -128
/// becomes 128, read as unsigned.
template <class Format>
__m256i block_products(const std::byte* block, __m256i high, __m256i low) {
  __m256i codes = load_codes<Format>(block);
  if constexpr (!Format::kNibbles) {
    high = _mm256_sign_epi8(high, codes);
    low = _mm256_sign_epi8(low, codes);
    codes = _mm256_abs_epi8(codes);
  }
  const __m256i upper = add_products(_mm256_setzero_si256(), codes, high);
  return add_products(_mm256_slli_epi32(upper, 7), codes, low);
}

float sum_lanes(__m256 lanes) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

constexpr int kAhead = 8;  // groups of rows

template <class Format, int kRows>
void multiply_some(const std::byte* from, std::size_t row_bytes, const IntegerVector& vector,
                   float* output) {
  __m256 lanes[kRows];
  __m128 rest[kRows];  // lane 1: the minimum's part
  for (int row = 0; row < kRows; ++row) {
    lanes[row] = _mm256_setzero_ps();
    rest[row] = _mm_setzero_ps();
  }
  const int blocks = vector.blocks();
  for (int block = 0; block < blocks; ++block) {
    const auto at = static_cast<std::size_t>(block);
    const __m256i high =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(vector.high.data() + at * kBlock));
    const __m256i low =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(vector.low.data() + at * kBlock));
    const __m128 factors = _mm_setr_ps(vector.scales[at], vector.sums[at], 0.0F, 0.0F);
    for (int row = 0; row < kRows; ++row) {
      const std::byte* codes =
          from + row_bytes * static_cast<std::size_t>(row) + at * Format::kBytes;
      // Measured on AVX-512: without this a step takes 1.7x as long, although rows are read in
      // order; of 1, 2, 3, 5 and 8 groups ahead, 8 was the best by a little.
      _mm_prefetch(reinterpret_cast<const char*>(codes) + row_bytes * kRows * kAhead, _MM_HINT_T0);
      const __m128 scaled = _mm_mul_ps(load_affine<Format>(codes), factors);
      const __m256 sums = _mm256_cvtepi32_ps(block_products<Format>(codes, high, low));
      lanes[row] = _mm256_fmadd_ps(_mm256_broadcastss_ps(scaled), sums, lanes[row]);
      if constexpr (Format::kNibbles) rest[row] = _mm_add_ps(rest[row], scaled);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    output[row] = sum_lanes(lanes[row]) + _mm_cvtss_f32(_mm_movehdup_ps(rest[row]));
  }
}

#endif

float dot(const float* first, const float* second, int count) {
  constexpr int kLanes = 16;  // independent sums, so that the compiler may use vectors
  float lanes[kLanes] = {};
  int index = 0;
  for (; index + kLanes <= count; index += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += first[index + lane] * second[index + lane];
    }
  }
  float sum = 0.0F;
  for (; index < count; ++index) sum += first[index] * second[index];
  for (const float lane : lanes) sum += lane;
  return sum;
}

}  // namespace

Matrix::Matrix(const Tensor& tensor)
    : type(tensor.type),
      rows(static_cast<int>(tensor.extents[1])),
      columns(static_cast<int>(tensor.extents[0])),
      data(tensor.data.data()) {
  if (tensor.rank > 2)
    throw FileError("a weight has " + std::to_string(tensor.rank) + " dimensions");
  row_bytes = tensor.data.size() / static_cast<std::size_t>(rows);
}

void dequantize(const Matrix& weights, int row, int first, int count, float* output) {
  const TypeLayout layout = layout_of(weights.type);
  const std::byte* from = weights.row(row) + static_cast<std::size_t>(first / layout.block) *
                                                 static_cast<std::size_t>(layout.bytes);
  if (weights.type == TensorType::f32) {
    std::memcpy(output, from, static_cast<std::size_t>(count) * sizeof(float));
  } else if (weights.type == TensorType::f16) {
    widen_halves(from, count, output);
  } else {
    with_codes(weights.type, [=]<class Format>(Format) {
      for (int block = 0; block < count / kBlock; ++block) {
        dequantize_block<Format>(from + block * Format::kBytes, output + block * kBlock);
      }
    });
  }
}

void IntegerVector::assign(std::span<const float> numbers) {
  constexpr float kMost = 127.0F * 128.0F;
  constexpr float kLeast = 1e-30F;  // blocks smaller than that are zeros
  constexpr float kRound =
      12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number, in vectors too
  high.resize(numbers.size());
  low.resize(numbers.size());
  scales.resize(numbers.size() / kBlock);
  sums.resize(numbers.size() / kBlock);
  for (std::size_t block = 0; block < scales.size(); ++block) {
    const float* from = numbers.data() + block * kBlock;
    float most = 0.0F;
    std::uint32_t broken = 0;  // an infinity or NaN must reach the product, not vanish in the codes
    for (int index = 0; index < kBlock; ++index) {
      const float size = std::fabs(from[index]);
      most = size > most ? size : most;
      broken |= std::bit_cast<std::uint32_t>(size) >= 0x7F800000U ? 1U : 0U;
    }
    const float scale = broken != 0 ? std::numeric_limits<float>::quiet_NaN() : most / kMost;
    const float inverse = scale > kLeast ? 1.0F / scale : 0.0F;
    std::int32_t sum = 0;
    for (int index = 0; index < kBlock; ++index) {
      const float number = broken != 0 ? 0.0F : from[index];
      const float whole = (number * inverse + kRound) - kRound;
      const float upper = (whole * (1.0F / 128.0F) + kRound) - kRound;
      const auto code = static_cast<std::int32_t>(whole);
      const auto upper_code = static_cast<std::int32_t>(upper);
      high[block * kBlock + static_cast<std::size_t>(index)] = static_cast<std::int8_t>(upper_code);
      low[block * kBlock + static_cast<std::size_t>(index)] =
          static_cast<std::int8_t>(code - 128 * upper_code);
      sum += code;
    }
    scales[block] = scale;
    sums[block] = scale * static_cast<float>(sum);
  }
}

void multiply_rows_portable(const Matrix& weights, int first, int count,
                            const IntegerVector& vector, float* output) {
  with_codes(weights.type, [&]<class Format>(Format) {
    for (int row = 0; row < count; ++row) {
      output[row] = multiply_row_portable<Format>(weights.row(first + row), vector);
    }
  });
}

void multiply_rows(const Matrix& weights, int first, int count, const IntegerVector& vector,
                   float* output) {
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
  with_codes(weights.type, [&]<class Format>(Format) {
    constexpr int kTogether = 4;  // rows that share the loads of the vector
    int row = 0;
    for (; row + kTogether <= count; row += kTogether) {
      multiply_some<Format, kTogether>(weights.row(first + row), weights.row_bytes, vector,
                                       output + row);
    }
    for (; row < count; ++row) {
      multiply_some<Format, 1>(weights.row(first + row), weights.row_bytes, vector, output + row);
    }
  });
#else
  multiply_rows_portable(weights, first, count, vector, output);
#endif
}

void multiply_rows(const Matrix& weights, int first, int count, const float* vector,
                   float* output) {
  constexpr int kChunk = 512;
  float chunk[kChunk];
  for (int row = 0; row < count; ++row) {
    float product = 0.0F;
    for (int column = 0; column < weights.columns; column += kChunk) {
      const int width = std::min(kChunk, weights.columns - column);
      dequantize(weights, first + row, column, width, chunk);
      product += dot(chunk, vector + column, width);
    }
    output[row] = product;
  }
}

}  // namespace kvast::decoder
