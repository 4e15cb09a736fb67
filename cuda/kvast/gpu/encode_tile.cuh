// SPDX-License-Identifier: Apache-2.0
// A thread block encodes the payload of one block of 32 tokens: the codes and metadata of the CPU's
// tile_encode.
#pragma once

#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/payload.h"

namespace kvast::gpu {

/// Shared memory of encode_payload: codes of a row per thread.
template <int kThreads>
struct EncodeShared {
  std::uint8_t codes[kThreads][kBlockTokens];
};

namespace detail {

/// A row of numbers becomes codes, 0 beyond its end.
template <class Format>
KVAST_HD void encode_row(const float* numbers, int columns, std::uint8_t* codes, Affine& affine) {
  if constexpr (CodedFormat<Format>) {
    Format::quantize(numbers, columns, codes, affine);
  } else {
    for (int column = 0; column < columns; ++column)
      codes[column] = Format::element(numbers[column]).bits;
  }
  for (int column = columns; column < kBlockTokens; ++column) codes[column] = 0;
}

/// Words of codes, each made by one thread, of the rows [first, first + kThreads) of a payload.
template <class Format, Part kPart, int kThreads>
KVAST_HD void pack_fragments(int thread, const EncodeShared<kThreads>& shared, int first, int dim,
                             std::byte* payload) {
  constexpr int kBits = code_bits<Format>();
  using Words = CodeWords<kBits>;
  static_assert(kThreads % kBlockTokens == 0);
  const FragmentPayload<Format, kPart> layout{dim};
  const PayloadRows<Format, kPart> rows{dim};
  // rows of a turn are so many channels, whose words are neighbours
  const int begin = first * kBits / 32;
  const int end = least_of(begin + kThreads * kBits / 32, layout.words().words());
  for (int at = thread; at < (end - begin) * kWarp; at += kThreads) {
    const int lane = at % kWarp;
    const int word = begin + at / kWarp;
    std::uint32_t bits = 0;
    for (int code = 0; code < 2 * Words::kPairs; ++code) {
      const LaneCode<kPart> mine{lane, word * Words::kPairs + code / 2, code % 2};
      const BlockCode from = mine.code();
      const int row = payload_row<kPart>(from) - first;
      const int column = payload_column<kPart>(from);
      if (row + first >= rows.rows()) continue;  // a channel that the head does not have
      bits |= static_cast<std::uint32_t>(shared.codes[row][column])
              << Words::shift(mine.pair, mine.second);
    }
    *reinterpret_cast<std::uint32_t*>(payload + layout.codes() + layout.words().word(lane, word)) =
        bits;
  }
}

/// Bytes of tiles, of the same rows.
template <class Format, Part kPart, int kThreads>
KVAST_HD void pack_tiles(int thread, const EncodeShared<kThreads>& shared, int first, int dim,
                         std::byte* payload) {
  static_assert(kThreads % kUnitRows == 0);
  const PayloadRows<Format, kPart> layout{dim};
  constexpr int kUnit = static_cast<int>(unit_bytes<Format::kBits>());
  const int units = least_of(layout.rows() - first, kThreads) / kUnitRows;
  for (int at = thread; at < units * kUnit; at += kThreads) {
    const int unit = at / kUnit * kUnitRows;  // its first row, of this turn
    std::byte* bytes =
        kvast::detail::unit_of<Format>(payload + layout.tile(first + unit), layout.rows_in_tile(),
                                       layout.row_in_tile(first + unit)) +
        at % kUnit;
    *bytes = static_cast<std::byte>(unit_byte<Format::kBits>(&shared.codes[unit], at % kUnit));
  }
}

/// Of formats that have codes.
template <class Format, Part kPart, int kThreads>
KVAST_HD void pack_codes(int thread, const EncodeShared<kThreads>& shared, int first, int dim,
                         std::byte* payload) {
  if constexpr (kInFragments<Format>) {
    pack_fragments<Format, kPart>(thread, shared, first, dim, payload);
  } else {
    pack_tiles<Format, kPart>(thread, shared, first, dim, payload);
  }
}

}  // namespace detail

/// read(token, channel) -> payload. Every thread of the block takes part; a thread encodes a row.
template <class Format, Part kPart, class Block, int kThreads, class Read>
KVAST_HD void encode_payload(const Block& block, EncodeShared<kThreads>& shared, int dim,
                             std::byte* payload, const Read& read) {
  const PayloadRows<Format, kPart> layout{dim};
  for (int first = 0; first < layout.rows(); first += kThreads) {
    const int row = first + block.thread();
    float numbers[kBlockTokens];
    const int columns = row < layout.rows() ? layout.columns(row) : 0;
    for (int column = 0; column < columns; ++column)
      numbers[column] = read(layout.token(row, column), layout.channel(row, column));
    if constexpr (CodedFormat<Format> || kInFragments<Format>) {
      if (row < layout.rows()) {
        Affine affine;
        detail::encode_row<Format>(numbers, columns, shared.codes[block.thread()], affine);
        int apart = 0;
        half* metadata = layout.metadata(payload, row, apart);
        if constexpr (code_planes<Format>() >= 1) metadata[0] = affine.scale;
        if constexpr (code_planes<Format>() == 2) metadata[apart] = affine.minimum;
      }
      block.sync();
      detail::pack_codes<Format, kPart>(block.thread(), shared, first, dim, payload);
      block.sync();
    } else if (row < layout.rows()) {
      auto* elements = reinterpret_cast<typename Format::Element*>(payload + layout.tile(row)) +
                       layout.row_in_tile(row) * columns;
      for (int column = 0; column < columns; ++column)
        elements[column] = Format::element(numbers[column]);
    }
  }
}

}  // namespace kvast::gpu
