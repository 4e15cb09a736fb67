// SPDX-License-Identifier: Apache-2.0
// The microkernel: rows of numbers times a tile. Both halves of attention are this product. Dense
// formats are converted to float here; codes are multiplied as integers (multiply_codes.h).
#pragma once

#include <algorithm>

#include "kvast/format/floats.h"
#include "kvast/format/tile.h"
#include "kvast/host/multiply_codes.h"
#include "kvast/host/simd.h"

namespace kvast {

namespace detail {

/// c[row][0..32) += a[row][0..depth) x elements, for Rows rows whose accumulators stay in
/// registers.
template <class Format, class Simd, int Rows>
void multiply_rows(const float* a, std::ptrdiff_t a_stride, int depth,
                   const typename Format::Element* elements, float* c, std::ptrdiff_t c_stride,
                   const std::byte* ahead) {
  using F = typename Simd::F;
  constexpr int kVectors = Simd::vectors(Rows);
  constexpr int kTurns = kBlockTokens / Simd::kLanes / kVectors;
  constexpr std::size_t kAhead = sizeof(typename Format::Element) * kBlockTokens;
  for (int turn = 0; turn < kTurns; ++turn) {
    F sum[Rows][kVectors];
    float* to = c + turn * kVectors * Simd::kLanes;
    for (int row = 0; row < Rows; ++row) {
      for (int at = 0; at < kVectors; ++at) {
        sum[row][at] = Simd::load(to + row * c_stride + at * Simd::kLanes);
      }
    }
    const typename Format::Element* group = elements + turn * kVectors * Simd::kLanes;
    const std::byte* next = ahead;
    for (int step = 0; step < depth; ++step, group += kBlockTokens, next += kAhead) {
      for (std::size_t line = 0; line < kAhead; line += 64) __builtin_prefetch(next + line);
      F lanes[kVectors];
      for (int at = 0; at < kVectors; ++at)
        lanes[at] = Format::template lanes<Simd>(group + at * Simd::kLanes);
      for (int row = 0; row < Rows; ++row) {
        const F factor = Simd::set1(a[row * a_stride + step]);
        for (int at = 0; at < kVectors; ++at)
          sum[row][at] = Simd::fma(factor, lanes[at], sum[row][at]);
      }
    }
    for (int row = 0; row < Rows; ++row) {
      for (int at = 0; at < kVectors; ++at) {
        Simd::store(to + row * c_stride + at * Simd::kLanes, sum[row][at]);
      }
    }
  }
}

/// The narrow last tile of a value_dim that is no multiple of 32, of at most 32 rows: as a whole
/// one, whose missing columns are zero.
template <class Format, class Simd>
void multiply_narrow(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                     const std::byte* tile, int columns, float* c, std::ptrdiff_t c_stride) {
  alignas(64) float sums[Simd::kMaxRows * kBlockTokens];
  const auto multiply_whole = [&](auto&& product) {
    for (int first = 0; first < rows; first += Simd::kMaxRows) {
      const int many = std::min(Simd::kMaxRows, rows - first);
      std::fill_n(sums, many * kBlockTokens, 0.0F);
      product(a + first * a_stride, many);
      for (int row = 0; row < many; ++row) {
        for (int column = 0; column < columns; ++column)
          c[(first + row) * c_stride + column] += sums[row * kBlockTokens + column];
      }
    }
  };
  if constexpr (CodedFormat<Format>) {  // it has 32 columns in memory
    multiply_whole([&](const float* from, int many) {
      multiply_codes<Format, Simd>(from, a_stride, many, depth, tile, 1, sums, kBlockTokens, tile,
                                   {});
    });
  } else {
    using Element = typename Format::Element;
    alignas(64) Element elements[kBlockTokens * kBlockTokens] = {};
    for (int row = 0; row < depth; ++row)
      std::copy_n(reinterpret_cast<const Element*>(tile) + row * columns, columns,
                  elements + row * kBlockTokens);
    multiply_whole([&](const float* from, int many) {
      with_rows<Simd::kMaxRows>(many, [&]<int Rows>() {
        multiply_rows<Format, Simd, Rows>(from, a_stride, depth, elements, sums, kBlockTokens,
                                          tile);
      });
    });
  }
}

}  // namespace detail

/// c[row][0..columns) += a[row][0..depth) x tiles, for any number of rows: a tile after another for
/// each 32 columns, all of `depth` rows, or of 32 where there are several. `ahead` is what will be
/// read next, or anything readable of that size: it is prefetched row by row, since the hardware
/// does not look beyond the page.
template <class Format, class Simd>
void tile_multiply(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                   const std::byte* tiles, int columns, float* c, std::ptrdiff_t c_stride,
                   const std::byte* ahead, [[maybe_unused]] const Pending& pending) {
  const int whole = columns / kBlockTokens;
  const std::size_t stride = tile_bytes<Format>(depth, kBlockTokens);
  if constexpr (CodedFormat<Format>) {
    if (whole > 0)
      multiply_codes<Format, Simd>(a, a_stride, rows, depth, tiles, whole, c, c_stride, ahead,
                                   pending);
  } else {
    for (int tile = 0; tile < whole; ++tile) {
      const std::size_t here = static_cast<std::size_t>(tile) * stride;
      const auto* elements = reinterpret_cast<const typename Format::Element*>(tiles + here);
      for (int first = 0; first < rows; first += Simd::kMaxRows) {
        const int many = std::min(Simd::kMaxRows, rows - first);
        detail::with_rows<Simd::kMaxRows>(many, [&]<int Rows>() {
          detail::multiply_rows<Format, Simd, Rows>(a + first * a_stride, a_stride, depth, elements,
                                                    c + first * c_stride + tile * kBlockTokens,
                                                    c_stride, (first == 0 ? ahead : tiles) + here);
        });
      }
    }
  }
  if (columns % kBlockTokens != 0) {
    detail::multiply_narrow<Format, Simd>(
        a, a_stride, rows, depth, tiles + static_cast<std::size_t>(whole) * stride,
        columns % kBlockTokens, c + whole * kBlockTokens, c_stride);
  }
}

}  // namespace kvast
