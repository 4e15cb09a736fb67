// SPDX-License-Identifier: Apache-2.0
// Rows of keys, values or queries in shared memory, as attention's products read them.
#pragma once

#include "kvast/core/block.h"
#include "kvast/gpu/block.cuh"

namespace kvast::gpu {

/// Rows of kDim elements in chunks of 16 bytes, permuted within a row so that eight rows of one
/// column of chunks lie in different banks, as a row's neighbours do: matrices are loaded along
/// either without conflicts, and no byte goes to padding.
template <class ElementType, int kDim>
struct SharedRows {
  using Element = ElementType;
  static constexpr int kElements = 16 / static_cast<int>(sizeof(Element));  ///< in a chunk
  static constexpr int kChunks = kDim / kElements;                          ///< in a row
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Element));
  static constexpr int kTileBytes = kBlockTokens * kRowBytes;
  static_assert(kChunks % 4 == 0);

  KVAST_HD static int offset(int row, int chunk) {
    const int turn = kChunks % 8 == 0 ? row & 7 : row >> 1 & 3;
    return row * kRowBytes + (chunk ^ turn) * 16;
  }
  KVAST_HD static Element& at(std::byte* rows, int row, int dim) {
    return reinterpret_cast<Element*>(rows + offset(row, dim / kElements))[dim % kElements];
  }

  /// Starts the copy of a block's payload, [32, row_bytes] without gaps, by one warp. What of a row
  /// lies beyond `row_bytes`, a multiple of 16, becomes zero.
  template <class Block>
  KVAST_HD static void copy(const Block& block, const std::byte* from, int row_bytes,
                            std::byte* to) {
    const int chunks = row_bytes / 16;
    const int lane = block.warp().lane();
    for (int step = 0; step < kChunks; ++step) {  // a constant count: unrolled
      const int at = step * kWarp + lane;
      const int row = at / kChunks;
      const int chunk = at % kChunks;
      const bool valid = chunk < chunks;
      const int skipped = valid ? row * row_bytes + chunk * 16 : 0;
      block.template copy_async<16>(to + offset(row, chunk), from + skipped, valid);
    }
  }
};

/// Four floats at once.
struct alignas(16) Quad {
  float at[4];
};

}  // namespace kvast::gpu
