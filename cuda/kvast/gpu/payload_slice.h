// SPDX-License-Identifier: Apache-2.0
// A part of a payload that is a payload itself: some of its channels.
#pragma once

#include "kvast/gpu/payload.h"

namespace kvast::gpu {

/// Channels [first, first + channels) of a payload of `dim`, as a payload of `channels`. `first` is
/// a multiple of kSliceChannels, so that whole lines of codes are taken, and rows of whole tiles.
inline constexpr int kSliceChannels = 128;

template <class Format, Part kPart>
struct PayloadSlice {
  int dim = 0;
  int first = 0;
  int channels = 0;

  KVAST_HD PayloadRows<Format, kPart> rows() const { return {channels}; }
  /// Bytes of the largest slice.
  KVAST_HD static constexpr std::int64_t most_bytes() {
    const FragmentPayload<Format, kPart> fragments{kSliceChannels};
    if constexpr (kInFragments<Format>) return fragments.bytes();
    return kPart == Part::keys
               ? static_cast<std::int64_t>(tile_bytes<Format>(kSliceChannels, kBlockTokens))
               : kSliceChannels / kBlockTokens *
                     static_cast<std::int64_t>(tile_bytes<Format>(kBlockTokens, kBlockTokens));
  }

  /// visit(byte in the payload, byte in the slice, bytes): pieces of which all three are multiples
  /// of 16.
  template <class Visit>
  KVAST_HD void each_piece(const Visit& visit) const {
    constexpr auto kHalf = static_cast<std::ptrdiff_t>(sizeof(half));
    if constexpr (kInFragments<Format>) {
      const FragmentPayload<Format, kPart> whole{dim};
      const FragmentPayload<Format, kPart> part{channels};
      for (int plane = 0; plane < code_planes<Format>(); ++plane) {
        visit((std::ptrdiff_t{plane} * whole.groups() + first) * kHalf,
              std::ptrdiff_t{plane} * part.groups() * kHalf, part.groups() * kHalf);
      }
      visit(std::ptrdiff_t{whole.codes()} + whole.words().word(0, first * code_bits<Format>() / 32),
            std::ptrdiff_t{part.codes()}, std::ptrdiff_t{part.words().bytes()});
    } else if constexpr (kPart == Part::keys) {
      for (int plane = 0; plane < code_planes<Format>(); ++plane) {
        visit((std::ptrdiff_t{plane} * dim + first) * kHalf,
              std::ptrdiff_t{plane} * channels * kHalf, channels * kHalf);
      }
      constexpr int kRow = kBlockTokens * code_bits<Format>() / 8;
      const auto codes_of = [](int rows) {
        return static_cast<std::ptrdiff_t>(tile_codes<Format>(rows));
      };
      visit(codes_of(dim) + std::ptrdiff_t{first} * kRow, codes_of(channels),
            std::ptrdiff_t{channels} * kRow);
    } else {
      visit(PayloadRows<Format, kPart>{dim}.tile(first), std::ptrdiff_t{0},
            static_cast<std::ptrdiff_t>(rows().bytes_in_tiles()));
    }
  }
};

}  // namespace kvast::gpu
