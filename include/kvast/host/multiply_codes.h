// SPDX-License-Identifier: Apache-2.0
// The microkernel on codes: rows of numbers, rounded to 16-bit integers, times integer codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kvast/format/tile.h"
#include "kvast/host/simd.h"

namespace kvast {

inline constexpr int kMaxDepth = 512;  ///< rows of a tile: head_dim, or the 32 tokens of a block

namespace detail {

/// Calls body.template operator()<Rows>() with Rows == rows, for rows in [1, Most].
template <int Most, class Body>
void with_rows(int rows, Body&& body) {
  if constexpr (Most > 1) {
    if (rows < Most) return with_rows<Most - 1>(rows, body);
  }
  body.template operator()<Most>();
}

/// Rows of the left side as integers: number = step * integer. Sixteen bits, so that what this adds
/// to a result is far below the codes' own error.
template <int kRows>
struct IntegerRows {
  alignas(64) std::int16_t numbers[kRows][kMaxDepth + 32];
  float bias[kRows];  ///< sum(number * minimum)
  float step = 0.0F;  ///< of all rows
};

inline constexpr float kMostInteger = 32767.0F;  ///< 512 products with 127 fit into 32 bits

/// Rows times the scales of the tile's rows, rounded; and their bias.
template <class Format, class Simd, int Rows, int kRows>
void round_rows(const float* a, std::ptrdiff_t a_stride, int depth, const std::byte* tile,
                IntegerRows<kRows>& out) {
  using F = typename Simd::F;
  const auto* planes = reinterpret_cast<const half*>(tile);
  alignas(64) float scaled[Rows][kMaxDepth + Simd::kLanes];
  F most = Simd::zero();
  F bias[Rows];
  for (F& sum : bias) sum = Simd::zero();
  const int whole = depth / Simd::kLanes * Simd::kLanes;
  for (int at = 0; at < whole; at += Simd::kLanes) {
    const F scale = Simd::load_half(planes + at);
    F minimum = Simd::zero();
    if constexpr (Format::kPlanes == 2) minimum = Simd::load_half(planes + depth + at);
    for (int row = 0; row < Rows; ++row) {
      const F number = Simd::load(a + row * a_stride + at);
      const F product = Simd::mul(number, scale);
      Simd::store(scaled[row] + at, product);
      most = Simd::max(most, Simd::abs(product));
      if constexpr (Format::kPlanes == 2) bias[row] = Simd::fma(number, minimum, bias[row]);
    }
  }
  float largest = Simd::reduce_max(most);
  for (int row = 0; row < Rows; ++row) {
    out.bias[row] = Simd::reduce_add(bias[row]);
    for (int at = whole; at < depth; ++at) {
      const float number = a[row * a_stride + at];
      scaled[row][at] = number * to_float(planes[at]);
      largest = std::max(largest, std::fabs(scaled[row][at]));
      if constexpr (Format::kPlanes == 2) out.bias[row] += number * to_float(planes[depth + at]);
    }
    std::fill_n(scaled[row] + depth, whole < depth ? Simd::kLanes : 0, 0.0F);
  }
  const F to_integer = Simd::set1(largest > 0.0F ? kMostInteger / largest : 0.0F);
  for (int row = 0; row < Rows; ++row) {
    for (int at = 0; at < depth; at += Simd::kLanes)
      Simd::store_int16(out.numbers[row] + at, Simd::mul(Simd::load(scaled[row] + at), to_integer));
  }
  out.step = largest / kMostInteger;
}

/// The levels of a pair of rows for Simd::kLanes columns from `column` on.
template <class Format, class Simd>
typename Simd::W unpack(const std::uint8_t* unit, int pair, int column) {
  constexpr int kField = Format::kBits == 3 ? 2 : Format::kBits;
  constexpr int kFields = 16 / kField;
  const int vector = 2 * pair + column / 16;
  typename Simd::W codes = Simd::load_words(unit + vector / kFields * 64 + column % 16 * 4);
  codes = Simd::template field < kField,
  Format::kPlanes == 1 && kField == 8 > (codes, vector % kFields);
  if constexpr (Format::kBits == 3)
    codes = Simd::add_fours(codes, unit + unit_bytes<2>() + 4 * vector + column % 16 / 4);
  if constexpr (Format::kHasLevels) codes = Simd::lookup(Format::kLevels, codes);
  return codes;
}

/// c[row][0..32) += rows x codes; accumulators stay in registers.
template <class Format, class Simd, int Rows, int kRows>
void multiply_units(const IntegerRows<kRows>& a, int depth, const std::uint8_t* units, float* c,
                    std::ptrdiff_t c_stride, const std::byte* ahead) {
  using F = typename Simd::F;
  constexpr int kVectors = Simd::vectors(Rows);
  constexpr std::size_t kUnit = unit_bytes<Format::kBits>();
  constexpr std::size_t kAhead = kUnit + tile_codes<Format>(kUnitRows);
  for (int first = 0; first < kBlockTokens; first += kVectors * Simd::kLanes) {
    typename Simd::I sum[Rows][kVectors];
    for (auto& row : sum) {
      for (auto& one : row) one = Simd::no_sum();
    }
    const std::uint8_t* unit = units;
    const std::byte* next = ahead;
    for (int step = 0; step < depth; step += kUnitRows, unit += kUnit, next += kAhead) {
      if (first == 0) {
        for (std::size_t line = 0; line < kAhead; line += 64) __builtin_prefetch(next + line);
      }
      for (int pair = 0; pair < kUnitRows / 2; ++pair) {
        for (int at = 0; at < kVectors; ++at) {
          const auto levels = unpack<Format, Simd>(unit, pair, first + at * Simd::kLanes);
          for (int row = 0; row < Rows; ++row)
            sum[row][at] = Simd::dot(sum[row][at], levels, a.numbers[row] + step + 2 * pair);
        }
      }
    }
    const F step = Simd::set1(a.step);
    for (int row = 0; row < Rows; ++row) {
      const F bias = Simd::set1(a.bias[row]);
      for (int at = 0; at < kVectors; ++at) {
        float* to = c + row * c_stride + first + at * Simd::kLanes;
        Simd::store(to,
                    Simd::fma(step, Simd::to_float(sum[row][at]), Simd::add(bias, Simd::load(to))));
      }
    }
  }
}

}  // namespace detail

/// c[row][0..32) += a[row][0..depth) x tile. The affine part never enters the inner loop: a row is
/// multiplied by the scales of the tile's groups first, and sum(a * minimum) is one number per row.
template <class Format, class Simd>
void multiply_codes(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                    const std::byte* tile, float* c, std::ptrdiff_t c_stride,
                    const std::byte* ahead) {
  const auto* units = reinterpret_cast<const std::uint8_t*>(tile + tile_codes<Format>(depth));
  detail::IntegerRows<Simd::kMaxRows> integers;
  for (int first = 0; first < rows; first += Simd::kMaxRows) {
    detail::with_rows<Simd::kMaxRows>(std::min(Simd::kMaxRows, rows - first), [&]<int Rows>() {
      detail::round_rows<Format, Simd, Rows>(a + first * a_stride, a_stride, depth, tile, integers);
      detail::multiply_units<Format, Simd, Rows>(integers, depth, units, c + first * c_stride,
                                                 c_stride, first == 0 ? ahead : tile);
    });
  }
}

}  // namespace kvast
