// SPDX-License-Identifier: Apache-2.0
// A thread block encodes and decodes the tiles of one block of 32 tokens: the same bytes as the
// CPU's tile_encode.
#pragma once

#include "kvast/format/tile.h"
#include "kvast/gpu/collective.cuh"

namespace kvast::gpu {

/// Which of a token's vectors.
enum class Part : std::uint8_t { keys, values };

/// Where a row of a K or V block lies. A K block is one tile [dim, 32 tokens], a V block a tile
/// [32 tokens, 32 channels] for each 32 channels; its rows are counted through: 32 * tile + token.
template <class Format, Part kPart>
struct PayloadRows {
  int dim = 0;

  KVAST_HD int rows() const {
    if constexpr (kPart == Part::keys) return dim;
    return (dim + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  }
  KVAST_HD int rows_in_tile() const { return kPart == Part::keys ? dim : kBlockTokens; }
  KVAST_HD int row_in_tile(int row) const { return kPart == Part::keys ? row : row % kBlockTokens; }
  /// Numbers in this row.
  KVAST_HD int columns(int row) const {
    if constexpr (kPart == Part::keys) return kBlockTokens;
    return least_of(dim - row / kBlockTokens * kBlockTokens, kBlockTokens);
  }
  /// Of a payload, where the tile of this row begins.
  KVAST_HD std::ptrdiff_t tile(int row) const {
    if constexpr (kPart == Part::keys) return 0;
    return row / kBlockTokens *
           static_cast<std::ptrdiff_t>(tile_bytes<Format>(kBlockTokens, kBlockTokens));
  }
  /// Bytes of the whole payload.
  KVAST_HD std::int64_t bytes() const {
    const int last = rows() - 1;
    return tile(last) +
           static_cast<std::int64_t>(tile_bytes<Format>(rows_in_tile(), columns(last)));
  }
  /// Channel and token of a row's number.
  KVAST_HD int channel(int row, int column) const {
    return kPart == Part::keys ? row : row / kBlockTokens * kBlockTokens + column;
  }
  KVAST_HD int token(int row, int column) const {
    return kPart == Part::keys ? column : row % kBlockTokens;
  }
  /// One number of a payload.
  KVAST_HD float number(const std::byte* payload, int at_token, int at_channel) const {
    const int row =
        kPart == Part::keys ? at_channel : at_channel / kBlockTokens * kBlockTokens + at_token;
    const int column = kPart == Part::keys ? at_token : at_channel % kBlockTokens;
    return tile_number<Format>(payload + tile(row), rows_in_tile(), columns(row), row_in_tile(row),
                               column);
  }
};

/// Shared memory of encode_payload: codes of a row per thread.
template <int kThreads>
struct EncodeShared {
  std::uint8_t codes[kThreads][kBlockTokens];
};

/// read(token, channel) -> payload. Every thread of the block takes part; a thread encodes a row.
template <class Format, Part kPart, class Block, int kThreads, class Read>
KVAST_HD void encode_payload(const Block& block, EncodeShared<kThreads>& shared, int dim,
                             std::byte* payload, const Read& read) {
  static_assert(kThreads % kUnitRows == 0);
  const PayloadRows<Format, kPart> layout{dim};
  for (int first = 0; first < layout.rows(); first += kThreads) {
    const int row = first + block.thread();
    if constexpr (CodedFormat<Format>) {
      if (row < layout.rows()) {
        float numbers[kBlockTokens];
        const int columns = layout.columns(row);
        for (int column = 0; column < columns; ++column)
          numbers[column] = read(layout.token(row, column), layout.channel(row, column));
        std::uint8_t* codes = shared.codes[block.thread()];
        Affine affine;
        Format::quantize(numbers, columns, codes, affine);
        for (int column = columns; column < kBlockTokens; ++column) codes[column] = 0;
        auto* planes = reinterpret_cast<half*>(payload + layout.tile(row));
        const int at = layout.row_in_tile(row);
        planes[at] = affine.scale;
        if constexpr (Format::kPlanes == 2) planes[layout.rows_in_tile() + at] = affine.minimum;
      }
      block.sync();
      constexpr int kUnit = static_cast<int>(unit_bytes<Format::kBits>());
      const int units = least_of(layout.rows() - first, kThreads) / kUnitRows;
      for (int at = block.thread(); at < units * kUnit; at += kThreads) {
        const int unit = at / kUnit * kUnitRows;  // its first row, of this turn
        std::byte* bytes = kvast::detail::unit_of<Format>(payload + layout.tile(first + unit),
                                                          layout.rows_in_tile(),
                                                          layout.row_in_tile(first + unit)) +
                           at % kUnit;
        *bytes = static_cast<std::byte>(unit_byte<Format::kBits>(&shared.codes[unit], at % kUnit));
      }
      block.sync();
    } else if (row < layout.rows()) {
      const int columns = layout.columns(row);
      auto* elements = reinterpret_cast<typename Format::Element*>(payload + layout.tile(row)) +
                       layout.row_in_tile(row) * columns;
      for (int column = 0; column < columns; ++column)
        elements[column] =
            Format::element(read(layout.token(row, column), layout.channel(row, column)));
    }
  }
}

}  // namespace kvast::gpu
