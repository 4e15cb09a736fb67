// SPDX-License-Identifier: Apache-2.0
// A tile is `rows` groups of up to 32 columns in one format: a K block is one tile (a row per
// channel, a column per token), a V block one tile per 32 channels (a row per token).
#pragma once

#include <cstddef>
#include <cstring>

#include "kvast/core/group.h"

namespace kvast {

/// Layout: scales [rows], minima [rows] (where the format has them), then the codes, row after row.
template <class Format>
constexpr std::size_t tile_codes(int rows) {
  return static_cast<std::size_t>(Format::kPlanes * rows) * sizeof(half);
}
template <class Format>
constexpr std::size_t tile_bytes(int rows, int columns) {
  return tile_codes<Format>(rows) + static_cast<std::size_t>(rows) * Format::group_bytes(columns);
}

namespace detail {

template <class Format>
Affine tile_affine(const std::byte* tile, int rows, int row) {
  if constexpr (Format::kPlanes == 0) return {half{0x3C00}, half{0}};
  const auto* planes = reinterpret_cast<const half*>(tile);
  return {planes[row], planes[rows + row]};
}

}  // namespace detail

/// numbers[row][0..columns) -> tile.
template <class Format>
void tile_encode(const float* numbers, std::ptrdiff_t stride, int rows, int columns,
                 std::byte* tile) {
  std::byte* codes = tile + tile_codes<Format>(rows);
  for (int row = 0; row < rows; ++row) {
    Affine affine;
    Format::encode(numbers + row * stride, columns, codes, affine);
    codes += Format::group_bytes(columns);
    if constexpr (Format::kPlanes != 0) {
      auto* planes = reinterpret_cast<half*>(tile);
      planes[row] = affine.scale;
      planes[rows + row] = affine.minimum;
    }
  }
}

/// tile -> numbers[row][0..columns).
template <class Format>
void tile_decode(const std::byte* tile, int rows, int columns, float* numbers,
                 std::ptrdiff_t stride) {
  const std::byte* codes = tile + tile_codes<Format>(rows);
  for (int row = 0; row < rows; ++row, codes += Format::group_bytes(columns)) {
    const Affine affine = detail::tile_affine<Format>(tile, rows, row);
    const float scale = to_float(affine.scale);
    const float minimum = to_float(affine.minimum);
    for (int column = 0; column < columns; ++column) {
      numbers[row * stride + column] = Format::kPlanes == 0
                                           ? Format::code(codes, column)
                                           : Format::code(codes, column) * scale + minimum;
    }
  }
}

/// One row, codes and metadata as they are, from one tile to another of the same shape.
template <class Format>
void tile_copy_row(const std::byte* from, int from_row, std::byte* to, int to_row, int rows,
                   int columns) {
  const std::size_t group = Format::group_bytes(columns);
  const std::size_t codes = tile_codes<Format>(rows);
  std::memcpy(to + codes + static_cast<std::size_t>(to_row) * group,
              from + codes + static_cast<std::size_t>(from_row) * group, group);
  for (int plane = 0; plane < Format::kPlanes; ++plane) {
    reinterpret_cast<half*>(to)[plane * rows + to_row] =
        reinterpret_cast<const half*>(from)[plane * rows + from_row];
  }
}

/// One column of a dense tile: numbers[row] -> tile[row][column].
template <class Format>
requires Format::kDense void tile_write_column(const float* numbers, std::byte* tile, int rows,
                                               int column) {
  auto* elements = reinterpret_cast<typename Format::Element*>(tile);
  for (int row = 0; row < rows; ++row)
    elements[row * kBlockTokens + column] = Format::element(numbers[row]);
}

template <class Format>
requires Format::kDense void tile_copy_column(const std::byte* from, int from_column, std::byte* to,
                                              int to_column, int rows) {
  const auto* source = reinterpret_cast<const typename Format::Element*>(from);
  auto* target = reinterpret_cast<typename Format::Element*>(to);
  for (int row = 0; row < rows; ++row) {
    target[row * kBlockTokens + to_column] = source[row * kBlockTokens + from_column];
  }
}

}  // namespace kvast
