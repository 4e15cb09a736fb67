// SPDX-License-Identifier: Apache-2.0
// The microkernel: rows of numbers times a tile. Both halves of attention are this product.
#pragma once

#include <algorithm>

#include "kvast/format/floats.h"
#include "kvast/format/tile.h"
#include "kvast/host/simd.h"

namespace kvast {

inline constexpr int kMaxDepth = 512;  ///< rows of a tile: head_dim, or the 32 tokens of a block

namespace detail {

/// c[row][0..32) += a[row][0..depth) x codes, for Rows rows whose accumulators stay in registers.
template <class Format, class Simd, int Rows>
void multiply_rows(const float* a, std::ptrdiff_t a_stride, int depth, const std::byte* codes,
                   float* c, std::ptrdiff_t c_stride, const std::byte* ahead) {
  using F = typename Simd::F;
  constexpr int kVectors = Simd::vectors(Rows);
  constexpr int kTurns = kBlockTokens / Simd::kLanes / kVectors;
  constexpr std::size_t kGroup = Format::group_bytes(kBlockTokens);
  constexpr std::size_t kAhead = kGroup + tile_codes<Format>(1);  // a row's share of the tile
  for (int turn = 0; turn < kTurns; ++turn) {
    F sum[Rows][kVectors];
    float* to = c + turn * kVectors * Simd::kLanes;
    for (int row = 0; row < Rows; ++row) {
      for (int at = 0; at < kVectors; ++at) {
        sum[row][at] = Simd::load(to + row * c_stride + at * Simd::kLanes);
      }
    }
    const std::byte* group = codes;
    const std::byte* next = ahead;
    for (int step = 0; step < depth; ++step, group += kGroup, next += kAhead) {
      for (std::size_t line = 0; line < kAhead; line += 64) __builtin_prefetch(next + line);
      F lanes[kVectors];
      for (int at = 0; at < kVectors; ++at) {
        lanes[at] = Format::template lanes<Simd>(group, turn * kVectors + at);
      }
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

/// Calls body.template operator()<Rows>() with Rows == rows, for rows in [1, Most].
template <int Most, class Body>
void with_rows(int rows, Body&& body) {
  if constexpr (Most > 1) {
    if (rows < Most) return with_rows<Most - 1>(rows, body);
  }
  body.template operator()<Most>();
}

}  // namespace detail

/// c[row][0..columns) += a[row][0..depth) x tile, for any number of rows. The affine part never
/// enters the inner loop: a[row][step] is multiplied by the scale of its group, and sum(a *
/// minimum) is one number per row. `ahead` is the tile that will be read next, or any readable
/// tile: it is prefetched row by row, since the hardware does not look beyond the page.
template <class Format, class Simd>
void tile_multiply(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                   const std::byte* tile, int columns, float* c, std::ptrdiff_t c_stride,
                   const std::byte* ahead) {
  if (columns != kBlockTokens) {  // the narrow last tile of a head_dim that is no multiple of 32
    alignas(64) float numbers[kBlockTokens * kBlockTokens] = {};
    alignas(64) float sums[kBlockTokens];
    tile_decode<Format>(tile, depth, columns, numbers, kBlockTokens);
    for (int row = 0; row < rows; ++row) {
      std::fill_n(sums, kBlockTokens, 0.0F);
      detail::multiply_rows<F32, Simd, 1>(a + row * a_stride, a_stride, depth,
                                          reinterpret_cast<const std::byte*>(numbers), sums,
                                          kBlockTokens, ahead);
      for (int column = 0; column < columns; ++column) c[row * c_stride + column] += sums[column];
    }
    return;
  }
  const std::byte* codes = tile + tile_codes<Format>(depth);
  for (int first = 0; first < rows; first += Simd::kMaxRows) {
    const int many = std::min(Simd::kMaxRows, rows - first);
    const float* factors = a + first * a_stride;
    std::ptrdiff_t factors_stride = a_stride;
    float* to = c + first * c_stride;
    alignas(64) float scaled[Format::kPlanes == 0 ? 1 : Simd::kMaxRows * kMaxDepth];
    if constexpr (Format::kPlanes != 0) {
      alignas(64) float scales[kMaxDepth + Simd::kLanes];
      alignas(64) float minima[kMaxDepth + Simd::kLanes];
      const auto* planes = reinterpret_cast<const half*>(tile);
      for (int step = 0; step < depth;
           step += Simd::kLanes) {  // may read into the codes, never past them
        Simd::store(scales + step, Simd::load_half(planes + step));
        Simd::store(minima + step, Simd::load_half(planes + depth + step));
      }
      for (int row = 0; row < many; ++row) {
        float partial[8] =
            {};  // depth is a multiple of 8; eight sums, so that the compiler may use vectors
        for (int step = 0; step < depth; step += 8) {
          for (int at = 0; at < 8; ++at) {
            const float factor = factors[row * a_stride + step + at];
            scaled[row * kMaxDepth + step + at] = factor * scales[step + at];
            partial[at] += factor * minima[step + at];
          }
        }
        float bias = 0.0F;
        for (const float part : partial) bias += part;
        for (int column = 0; column < kBlockTokens; ++column) to[row * c_stride + column] += bias;
      }
      factors = scaled;
      factors_stride = kMaxDepth;
    }
    detail::with_rows<Simd::kMaxRows>(many, [&]<int Rows>() {
      detail::multiply_rows<Format, Simd, Rows>(factors, factors_stride, depth, codes, to, c_stride,
                                                first == 0 ? ahead : codes);
    });
  }
}

}  // namespace kvast
