// SPDX-License-Identifier: Apache-2.0
// A coded block's payload between the device's order of codes (fragments.h) and the CPU's
// (format/tile.h). Metadata and codes stay what they are.
#pragma once

#include <cstring>

#include "kvast/gpu/payload.h"

namespace kvast::gpu {

namespace detail {

/// visit(row, column, code's place in the block) for all codes that tiles have, those of channels
/// beyond `dim` left out.
template <class Format, Part kPart, class Visit>
void each_code(int dim, const Visit& visit) {
  const PayloadRows<Format, kPart> rows{dim};
  for (int row = 0; row < rows.rows(); ++row) {
    for (int column = 0; column < rows.columns(row); ++column)
      visit(row, column, BlockCode{rows.token(row, column), rows.channel(row, column)});
  }
}

/// visit(plane, row): where the metadata of a row stands in tiles, counted in halves.
template <class Format, Part kPart, class Visit>
void each_metadata(int dim, const Visit& visit) {
  const PayloadRows<Format, kPart> rows{dim};
  for (int plane = 0; plane < code_planes<Format>(); ++plane) {
    for (int row = 0; row < rows.rows(); ++row) {
      visit(plane, row,
            rows.tile(row) / static_cast<std::ptrdiff_t>(sizeof(half)) +
                plane * rows.rows_in_tile() + rows.row_in_tile(row));
    }
  }
}

}  // namespace detail

/// Host memory of what a device has of one block and head (what quantize writes, or a cache holds):
///   from   PayloadRows<Format, kPart>{dim}.bytes()
///   to     PayloadRows<Format, kPart>{dim}.bytes_in_tiles(), aligned to 2 bytes
/// `dim` is a multiple of 8 up to 512.
template <class Format, Part kPart>
void to_tiles(const std::byte* from, int dim, std::byte* to) {
  const PayloadRows<Format, kPart> rows{dim};
  if constexpr (kInFragments<Format>) {
    const FragmentPayload<Format, kPart> payload{dim};
    std::memset(to, 0, static_cast<std::size_t>(rows.bytes_in_tiles()));
    detail::each_metadata<Format, kPart>(dim, [&](int plane, int row, std::ptrdiff_t at) {
      reinterpret_cast<half*>(to)[at] = payload.metadata(from, plane, row);
    });
    detail::each_code<Format, kPart>(dim, [&](int row, int column, BlockCode at) {
      std::byte* tile = to + rows.tile(row);
      const unsigned code = payload.code(from, at);
      const int line = rows.row_in_tile(row);
      if constexpr (CodedFormat<Format>) {
        unit_set<Format::kBits>(kvast::detail::unit_of<Format>(tile, rows.rows_in_tile(), line),
                                line % kUnitRows, column, code);
      } else {
        tile[line * rows.columns(row) + column] = static_cast<std::byte>(code);
      }
    });
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(rows.bytes_in_tiles()));
  }
}

/// And back.
template <class Format, Part kPart>
void from_tiles(const std::byte* from, int dim, std::byte* to) {
  const PayloadRows<Format, kPart> rows{dim};
  if constexpr (kInFragments<Format>) {
    const FragmentPayload<Format, kPart> payload{dim};
    std::memset(to, 0, static_cast<std::size_t>(payload.bytes()));
    detail::each_metadata<Format, kPart>(dim, [&](int plane, int row, std::ptrdiff_t at) {
      reinterpret_cast<half*>(to)[plane * payload.groups() + row] =
          reinterpret_cast<const half*>(from)[at];
    });
    detail::each_code<Format, kPart>(dim, [&](int row, int column, BlockCode at) {
      const std::byte* tile = from + rows.tile(row);
      const int line = rows.row_in_tile(row);
      unsigned code = 0;
      if constexpr (CodedFormat<Format>) {
        code =
            unit_get<Format::kBits>(kvast::detail::unit_of<Format>(tile, rows.rows_in_tile(), line),
                                    line % kUnitRows, column);
      } else {
        code = static_cast<unsigned>(tile[line * rows.columns(row) + column]);
      }
      payload.set_code(to, at, code);
    });
  } else {
    std::memcpy(to, from, static_cast<std::size_t>(rows.bytes_in_tiles()));
  }
}

}  // namespace kvast::gpu
