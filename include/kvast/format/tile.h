// SPDX-License-Identifier: Apache-2.0
// A tile is `rows` groups of up to 32 columns in one format: a K block is one tile (a row per
// channel, a column per token), a V block one tile per 32 channels (a row per token).
#pragma once

#include <cstddef>
#include <cstring>

#include "kvast/core/group.h"
#include "kvast/format/unit.h"

namespace kvast {

/// Bytes of metadata in front of the codes: scales [rows], then minima [rows], as the format has
/// them.
template <class Format>
KVAST_HD constexpr std::size_t tile_codes(int rows) {
  if constexpr (CodedFormat<Format>)
    return static_cast<std::size_t>(Format::kPlanes * rows) * sizeof(half);
  return 0;
}

/// Dense: rows of elements. Coded: metadata, then units of eight rows of 32 columns; `rows` is a
/// multiple of 8.
template <class Format>
KVAST_HD constexpr std::size_t tile_bytes(int rows, int columns) {
  if constexpr (CodedFormat<Format>) {
    return tile_codes<Format>(rows) +
           static_cast<std::size_t>(rows / kUnitRows) * unit_bytes<Format::kBits>();
  } else {
    return static_cast<std::size_t>(rows * columns) * sizeof(typename Format::Element);
  }
}

namespace detail {

/// scale and minimum of a row, as numbers.
struct RowAffine {
  float scale = 1.0F;
  float minimum = 0.0F;
};
template <CodedFormat Format>
KVAST_HD RowAffine row_affine(const std::byte* tile, int rows, int row) {
  const auto* planes = reinterpret_cast<const half*>(tile);
  const float scale = to_float(planes[row]);
  if constexpr (Format::kPlanes == 1) return {scale, 0.0F};
  return {scale, to_float(planes[rows + row])};
}

template <CodedFormat Format>
KVAST_HD float level_of(unsigned code) {
  int level = static_cast<int>(code);
  if constexpr (Format::kHasLevels) level = Format::level(code);
  return static_cast<float>(level - Format::kOffset);
}

/// The unit that holds a row.
template <CodedFormat Format, class Byte>
KVAST_HD Byte* unit_of(Byte* tile, int rows, int row) {
  return tile + tile_codes<Format>(rows) +
         static_cast<std::size_t>(row / kUnitRows) * unit_bytes<Format::kBits>();
}

}  // namespace detail

/// One number of a tile.
template <class Format>
KVAST_HD float tile_number(const std::byte* tile, int rows, int columns, int row, int column) {
  if constexpr (CodedFormat<Format>) {
    const detail::RowAffine affine = detail::row_affine<Format>(tile, rows, row);
    const std::byte* unit = detail::unit_of<Format>(tile, rows, row);
    const unsigned code = unit_get<Format::kBits>(unit, row % kUnitRows, column);
    // the product is exact, so contraction changes nothing
    return detail::level_of<Format>(code) * affine.scale + affine.minimum;
  } else {
    return Format::number(
        reinterpret_cast<const typename Format::Element*>(tile)[row * columns + column]);
  }
}

/// numbers[row][0..columns) -> tile.
template <class Format>
void tile_encode(const float* numbers, std::ptrdiff_t stride, int rows, int columns,
                 std::byte* tile) {
  if constexpr (CodedFormat<Format>) {
    auto* planes = reinterpret_cast<half*>(tile);
    std::uint8_t codes[kUnitRows][kBlockTokens] = {};
    for (int row = 0; row < rows; ++row) {
      Affine affine;
      Format::quantize(numbers + row * stride, columns, codes[row % kUnitRows], affine);
      planes[row] = affine.scale;
      if constexpr (Format::kPlanes == 2) planes[rows + row] = affine.minimum;
      if (row % kUnitRows == kUnitRows - 1)
        unit_pack<Format::kBits>(codes, detail::unit_of<Format>(tile, rows, row));
    }
  } else {
    auto* elements = reinterpret_cast<typename Format::Element*>(tile);
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column)
        elements[row * columns + column] = Format::element(numbers[row * stride + column]);
    }
  }
}

/// tile -> numbers[row][0..columns).
template <class Format>
void tile_decode(const std::byte* tile, int rows, int columns, float* numbers,
                 std::ptrdiff_t stride) {
  for (int row = 0; row < rows; ++row) {
    float* to = numbers + row * stride;
    if constexpr (CodedFormat<Format>) {
      const detail::RowAffine affine = detail::row_affine<Format>(tile, rows, row);
      const std::byte* unit = detail::unit_of<Format>(tile, rows, row);
      for (int column = 0; column < columns; ++column) {
        const unsigned code = unit_get<Format::kBits>(unit, row % kUnitRows, column);
        to[column] = detail::level_of<Format>(code) * affine.scale + affine.minimum;
      }
    } else {
      const auto* elements =
          reinterpret_cast<const typename Format::Element*>(tile) + row * columns;
      for (int column = 0; column < columns; ++column)
        to[column] = Format::number(elements[column]);
    }
  }
}

/// One row, codes and metadata as they are, from one tile to another of the same shape.
template <class Format>
void tile_copy_row(const std::byte* from, int from_row, std::byte* to, int to_row, int rows,
                   int columns) {
  if constexpr (CodedFormat<Format>) {
    const std::byte* source = detail::unit_of<Format>(from, rows, from_row);
    std::byte* target = detail::unit_of<Format>(to, rows, to_row);
    for (int column = 0; column < columns; ++column) {
      unit_set<Format::kBits>(target, to_row % kUnitRows, column,
                              unit_get<Format::kBits>(source, from_row % kUnitRows, column));
    }
    for (int plane = 0; plane < Format::kPlanes; ++plane) {
      reinterpret_cast<half*>(to)[plane * rows + to_row] =
          reinterpret_cast<const half*>(from)[plane * rows + from_row];
    }
  } else {
    const std::size_t bytes = static_cast<std::size_t>(columns) * sizeof(typename Format::Element);
    std::memcpy(to + static_cast<std::size_t>(to_row) * bytes,
                from + static_cast<std::size_t>(from_row) * bytes, bytes);
  }
}

/// One column of a dense tile: numbers[row] -> tile[row][column].
template <DenseFormat Format>
void tile_write_column(const float* numbers, std::byte* tile, int rows, int column) {
  auto* elements = reinterpret_cast<typename Format::Element*>(tile);
  for (int row = 0; row < rows; ++row)
    elements[row * kBlockTokens + column] = Format::element(numbers[row]);
}
template <DenseFormat Format>
void tile_copy_column(const std::byte* from, int from_column, std::byte* to, int to_column,
                      int rows) {
  const auto* source = reinterpret_cast<const typename Format::Element*>(from);
  auto* target = reinterpret_cast<typename Format::Element*>(to);
  for (int row = 0; row < rows; ++row)
    target[row * kBlockTokens + to_column] = source[row * kBlockTokens + from_column];
}
/// One row of a dense tile.
template <DenseFormat Format>
void tile_write_row(const float* numbers, std::byte* tile, int row, int columns) {
  auto* elements = reinterpret_cast<typename Format::Element*>(tile) + row * columns;
  for (int column = 0; column < columns; ++column)
    elements[column] = Format::element(numbers[column]);
}

}  // namespace kvast
