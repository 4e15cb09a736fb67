// SPDX-License-Identifier: Apache-2.0
// A coded block as the CPU encodes it, and as a device has it.
#pragma once

#include <vector>

#include "kvast/gpu/tiles.h"

namespace kvast::test {

/// A K or V block in tiles, of `numbers` [32 tokens, dim].
template <class Format, gpu::Part kPart>
std::vector<std::byte> tiles_of(const std::vector<float>& numbers, int dim) {
  const gpu::PayloadRows<Format, kPart> layout{dim};
  std::vector<std::byte> tiles(static_cast<std::size_t>(layout.bytes_in_tiles()));
  std::byte* to = tiles.data();
  const int step = kPart == gpu::Part::keys ? dim : kBlockTokens;
  for (int first = 0; first < layout.rows(); first += step) {
    const int columns = layout.columns(first);
    std::vector<float> rows;
    for (int row = first; row < first + step; ++row) {
      for (int column = 0; column < columns; ++column)
        rows.push_back(numbers[static_cast<std::size_t>(layout.token(row, column) * dim +
                                                        layout.channel(row, column))]);
    }
    tile_encode<Format>(rows.data(), columns, step, columns, to);
    to += tile_bytes<Format>(step, columns);
  }
  return tiles;
}

}  // namespace kvast::test
