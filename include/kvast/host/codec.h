// SPDX-License-Identifier: Apache-2.0
// A format as a value: what the verbs call on tiles, once per block, so that they are compiled once
// and not per format.
#pragma once

#include "kvast/host/multiply.h"

namespace kvast {

/// One format, compiled for one instruction set. Products stay thin: the K format and the V format
/// are chosen by two such pointers and never multiply.
struct Codec {
  const char* name;
  bool dense;  ///< the column and row writers exist: tokens can be appended and moved one by one
  std::size_t (*tile_bytes)(int rows, int columns);
  void (*multiply)(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                   const std::byte* tiles, int columns, float* c, std::ptrdiff_t c_stride,
                   const std::byte* ahead, const Pending& pending);
  void (*encode)(const float* numbers, std::ptrdiff_t stride, int rows, int columns,
                 std::byte* tile);
  void (*decode)(const std::byte* tile, int rows, int columns, float* numbers,
                 std::ptrdiff_t stride);
  void (*copy_row)(const std::byte* from, int from_row, std::byte* to, int to_row, int rows,
                   int columns);
  void (*write_column)(const float* numbers, std::byte* tile, int rows, int column);
  void (*copy_column)(const std::byte* from, int from_column, std::byte* to, int to_column,
                      int rows);
  void (*write_row)(const float* numbers, std::byte* tile, int row, int columns);
  float largest;  ///< magnitudes above this are refused when they arrive
};

namespace detail {

/// tile_decode, a vector of a dense row at a time.
template <class Format, class Simd>
void decode_rows(const std::byte* tile, int rows, int columns, float* numbers,
                 std::ptrdiff_t stride) {
  if constexpr (DenseFormat<Format>) {
    if (columns % Simd::kLanes == 0) {
      const auto* elements = reinterpret_cast<const typename Format::Element*>(tile);
      for (int row = 0; row < rows; ++row, elements += columns, numbers += stride) {
        for (int at = 0; at < columns; at += Simd::kLanes)
          Simd::store(numbers + at, Format::template lanes<Simd>(elements + at));
      }
      return;
    }
  }
  tile_decode<Format>(tile, rows, columns, numbers, stride);
}

template <class Format, class Simd>
constexpr Codec make_codec() {
  Codec codec{.name = Format::kName,
              .dense = DenseFormat<Format>,
              .tile_bytes = tile_bytes<Format>,
              .multiply = tile_multiply<Format, Simd>,
              .encode = tile_encode<Format>,
              .decode = decode_rows<Format, Simd>,
              .copy_row = tile_copy_row<Format>,
              .write_column = nullptr,
              .copy_column = nullptr,
              .write_row = nullptr,
              .largest = kHalfMax};
  if constexpr (DenseFormat<Format>) {
    codec.write_column = tile_write_column<Format>;
    codec.copy_column = tile_copy_column<Format>;
    codec.write_row = tile_write_row<Format>;
    codec.largest = Format::kLargest;
  }
  return codec;
}

}  // namespace detail

template <class Format, class Simd>
inline constexpr Codec kCodec = detail::make_codec<Format, Simd>();

/// Bytes of a K block and of a V block.
inline std::size_t key_block_bytes(const Codec& codec, int head_dim) {
  return codec.tile_bytes(head_dim, kBlockTokens);
}
inline std::size_t value_block_bytes(const Codec& codec, int value_dim) {
  const int full = value_dim / kBlockTokens;
  const int rest = value_dim % kBlockTokens;
  return static_cast<std::size_t>(full) * codec.tile_bytes(kBlockTokens, kBlockTokens) +
         (rest == 0 ? 0 : codec.tile_bytes(kBlockTokens, rest));
}

/// Calls body(tile, first_channel, channels) for every tile of a V block.
template <class Byte, class Body>
void for_value_tiles(const Codec& codec, Byte* values, int value_dim, Body&& body) {
  const std::size_t stride = codec.tile_bytes(kBlockTokens, kBlockTokens);
  for (int first = 0; first < value_dim; first += kBlockTokens, values += stride) {
    body(values, first, value_dim - first < kBlockTokens ? value_dim - first : kBlockTokens);
  }
}

}  // namespace kvast
