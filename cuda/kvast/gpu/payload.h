// SPDX-License-Identifier: Apache-2.0
// A coded block's payload on the device: metadata, then codes, of its keys or of its values.
#pragma once

#include "kvast/format/tile.h"
#include "kvast/gpu/fragments.h"

namespace kvast::gpu {

/// Numbers that are encoded together, up to 32: a row of a payload. A K block has a row [32 tokens]
/// per channel, a V block one [32 channels] per token and 32 channels; the latter are counted
/// through: 32 * channels' group + token.
template <Part kPart>
KVAST_HD constexpr int payload_rows(int dim) {
  return kPart == Part::keys ? dim : (dim + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
}
template <Part kPart>
KVAST_HD constexpr int payload_row(BlockCode at) {
  return kPart == Part::keys ? at.channel : at.channel / kBlockTokens * kBlockTokens + at.token;
}
template <Part kPart>
KVAST_HD constexpr int payload_column(BlockCode at) {
  return kPart == Part::keys ? at.token : at.channel % kBlockTokens;
}

/// Payload in fragments (fragments.h):
///   keys     scales [dim], minima [dim], as the format has them, then codes
///   values   scales [groups of 32 channels, 32 tokens], minima the same, then codes
/// As many bytes as the CPU's tiles where dim is a multiple of 32.
template <class Format, Part kPart>
struct FragmentPayload {
  static constexpr int kBits = code_bits<Format>();
  static constexpr int kPlanes = code_planes<Format>();
  int dim = 0;

  /// Groups with metadata of their own.
  KVAST_HD constexpr int groups() const { return payload_rows<kPart>(dim); }
  KVAST_HD constexpr CodeWords<kBits> words() const { return {dim}; }
  KVAST_HD constexpr int codes() const {
    return kPlanes * groups() * static_cast<int>(sizeof(half));
  }
  KVAST_HD constexpr std::int64_t bytes() const { return codes() + words().bytes(); }

  KVAST_HD unsigned code(const std::byte* payload, BlockCode at) const {
    const Place place = place_of(at);
    return static_cast<unsigned>(payload[place.byte]) >> place.shift & kMask;
  }
  KVAST_HD void set_code(std::byte* payload, BlockCode at, unsigned code) const {
    const Place place = place_of(at);
    const unsigned others =
        static_cast<unsigned>(payload[place.byte]) & ~(kMask << place.shift) & 0xFFU;
    payload[place.byte] = static_cast<std::byte>(others | (code & kMask) << place.shift);
  }
  /// Scale, or minimum where `plane` is 1, of a group.
  KVAST_HD half metadata(const std::byte* payload, int plane, int of_group) const {
    return reinterpret_cast<const half*>(payload)[plane * groups() + of_group];
  }
  KVAST_HD float number(const std::byte* payload, BlockCode at) const {
    const unsigned stored = code(payload, at);
    if constexpr (CodedFormat<Format>) {
      const auto affine =
          kvast::detail::row_affine<Format>(payload, groups(), payload_row<kPart>(at));
      // the product is exact, so contraction changes nothing
      return kvast::detail::level_of<Format>(stored) * affine.scale + affine.minimum;
    } else {
      return Format::number({static_cast<std::uint8_t>(stored)});
    }
  }

 private:
  static constexpr unsigned kMask = (1U << kBits) - 1U;
  struct Place {
    int byte = 0;
    int shift = 0;
  };
  KVAST_HD Place place_of(BlockCode at) const {
    const auto mine = LaneCode<kPart>::of(at);
    const int shift = CodeWords<kBits>::shift(mine.pair, mine.second);
    return {
        .byte = codes() + words().word(mine.lane, mine.pair / CodeWords<kBits>::kPairs) + shift / 8,
        .shift = shift % 8};
  }
};

/// The rows of a payload, whatever the order of their bytes. Formats that are not kInFragments lie
/// in tiles as on the CPU.
template <class Format, Part kPart>
struct PayloadRows {
  int dim = 0;

  KVAST_HD int rows() const { return payload_rows<kPart>(dim); }
  KVAST_HD int rows_in_tile() const { return kPart == Part::keys ? dim : kBlockTokens; }
  KVAST_HD int row_in_tile(int row) const { return kPart == Part::keys ? row : row % kBlockTokens; }
  /// Numbers in this row.
  KVAST_HD int columns(int row) const {
    if constexpr (kPart == Part::keys) return kBlockTokens;
    return least_of(dim - row / kBlockTokens * kBlockTokens, kBlockTokens);
  }
  /// Of a payload in tiles, where that of this row begins.
  KVAST_HD std::ptrdiff_t tile(int row) const {
    if constexpr (kPart == Part::keys) return 0;
    return row / kBlockTokens *
           static_cast<std::ptrdiff_t>(tile_bytes<Format>(kBlockTokens, kBlockTokens));
  }
  /// Bytes of the whole payload, and of it in tiles.
  KVAST_HD std::int64_t bytes() const {
    if constexpr (kInFragments<Format>) return FragmentPayload<Format, kPart>{dim}.bytes();
    return bytes_in_tiles();
  }
  KVAST_HD std::int64_t bytes_in_tiles() const {
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
  /// One code of a payload.
  KVAST_HD unsigned code(const std::byte* payload, BlockCode at) const {
    const int row = payload_row<kPart>(at);
    const int line = row_in_tile(row);
    if constexpr (kInFragments<Format>) {
      return FragmentPayload<Format, kPart>{dim}.code(payload, at);
    } else if constexpr (CodedFormat<Format>) {
      return unit_get<Format::kBits>(
          kvast::detail::unit_of<Format>(payload + tile(row), rows_in_tile(), line),
          line % kUnitRows, payload_column<kPart>(at));
    } else {
      static_assert(sizeof(typename Format::Element) == 1);
      return static_cast<unsigned>(
          payload[tile(row) + line * columns(row) + payload_column<kPart>(at)]);
    }
  }
  /// Where a row's scale stands, and how many halves behind it its minimum.
  KVAST_HD half* metadata(std::byte* payload, int row, int& apart) const {
    if constexpr (kInFragments<Format>) {
      apart = rows();
      return reinterpret_cast<half*>(payload) + row;
    } else {
      apart = rows_in_tile();
      return reinterpret_cast<half*>(payload + tile(row)) + row_in_tile(row);
    }
  }
  /// One number of a payload.
  KVAST_HD float number(const std::byte* payload, int at_token, int at_channel) const {
    const BlockCode at{at_token, at_channel};
    if constexpr (kInFragments<Format>) {
      return FragmentPayload<Format, kPart>{dim}.number(payload, at);
    } else {
      const int row = payload_row<kPart>(at);
      return tile_number<Format>(payload + tile(row), rows_in_tile(), columns(row),
                                 row_in_tile(row), payload_column<kPart>(at));
    }
  }
};

}  // namespace kvast::gpu
