// SPDX-License-Identifier: Apache-2.0
// Payloads of sparse coded blocks become fewer, in the memory that they have.
#pragma once

#include "kvast/core/repack.h"
#include "kvast/gpu/encode_tile.cuh"
#include "kvast/gpu/payload_slice.h"

namespace kvast::gpu {

/// What is merged, in shared memory: up to eight blocks, of which the first `made` take the tokens.
struct MergeWork {
  static constexpr int kSlots = kRepackBlocks * kBlockTokens;
  kvast::Block* blocks[kRepackBlocks];
  int keys[kRepackBlocks];       ///< of the blocks: merge_key
  int positions[kSlots];         ///< by 32 * block + slot
  std::uint8_t sources[kSlots];  ///< by age, 32 * block + slot
  int tokens = 0;

  /// Where token `slot` of block `made` comes from; -1: it has none.
  KVAST_HD int source(int made, int slot) const {
    const int token = made * kBlockTokens + slot;
    return token < tokens ? sources[token] : -1;
  }
  /// The same, but empty slots repeat a token: they must not widen the range of a row.
  KVAST_HD int source_or_any(int made, int slot) const {
    const int count = least_of(tokens - made * kBlockTokens, kBlockTokens);
    return sources[made * kBlockTokens + slot % count];
  }
};

/// Shared memory of merge_payloads: a slice of each block, and of the one that is made.
template <class Keys, class Values>
struct MergeShared {
  static constexpr std::int64_t kBytes = most_of(PayloadSlice<Keys, Part::keys>::most_bytes(),
                                                 PayloadSlice<Values, Part::values>::most_bytes());
  static constexpr int kThreads = kSliceChannels;
  alignas(16) std::byte slices[kRepackBlocks][kBytes];
  alignas(16) std::byte made[kBytes];
  EncodeShared<kThreads> encode;
};

namespace detail {

/// Rows of values move as they are: a thread per row. Slots without a token become zeroes.
template <class Format, class Block, class Shared>
KVAST_HD void move_rows(const Block& block, const MergeWork& work, int made, int channels,
                        Shared& shared) {
  constexpr Part kPart = Part::values;
  const PayloadRows<Format, kPart> layout{channels};
  const int row = block.thread();
  if (row < layout.rows()) {
    const int from = work.source(made, row % kBlockTokens);
    std::byte* source = from < 0 ? nullptr : shared.slices[from / kBlockTokens];
    const int columns = layout.columns(row);
    const int first = layout.channel(row, 0);
    const auto code_of = [&](int column) {
      if (source == nullptr || column >= columns) return 0U;
      return layout.code(source, {from % kBlockTokens, first + column});
    };
    if constexpr (CodedFormat<Format> || kInFragments<Format>) {
      for (int column = 0; column < kBlockTokens; ++column)
        shared.encode.codes[row][column] = static_cast<std::uint8_t>(code_of(column));
    } else {
      std::byte* to = shared.made + layout.tile(row) + row % kBlockTokens * columns;
      for (int column = 0; column < columns; ++column)
        to[column] = static_cast<std::byte>(code_of(column));
    }
    if constexpr (code_planes<Format>() > 0) {
      int apart = 0;
      half* to = layout.metadata(shared.made, row, apart);
      const int from_row = row / kBlockTokens * kBlockTokens + from % kBlockTokens;
      const half* stored = from < 0 ? nullptr : layout.metadata(source, from_row, apart);
      for (int plane = 0; plane < code_planes<Format>(); ++plane)
        to[plane * apart] = stored == nullptr ? half{} : stored[plane * apart];
    }
  }
  block.sync();
  if constexpr (CodedFormat<Format> || kInFragments<Format>)
    pack_codes<Format, kPart>(row, shared.encode, 0, channels, shared.made);
}

}  // namespace detail

/// The payloads of `count` blocks become those of the first `made`, some channels after the others:
/// all that is merged of them is read before any of it is written. Every thread takes part; payload
/// of a block is found by payload_of(block).
template <class Format, Part kPart, class Block, class Shared, class PayloadOf>
KVAST_HD void merge_payloads(const Block& block, const MergeWork& work, Merge merge, int dim,
                             Shared& shared, const PayloadOf& payload_of) {
  constexpr auto kChunk = static_cast<std::ptrdiff_t>(sizeof(Chunk));
  for (int first = 0; first < dim; first += kSliceChannels) {
    const PayloadSlice<Format, kPart> slice{dim, first, least_of(dim - first, kSliceChannels)};
    for (int at = 0; at < merge.count; ++at) {
      const std::byte* payload = payload_of(*work.blocks[at]);
      slice.each_piece([&](std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t bytes) {
        for (std::ptrdiff_t byte = block.thread() * kChunk; byte < bytes;
             byte += block.threads() * kChunk)
          block.copy_async(shared.slices[at] + to + byte, payload + from + byte);
      });
    }
    block.commit_copies();
    block.template wait_copies<0>();
    block.sync();
    for (int made = 0; made < merge.made; ++made) {
      if constexpr (kPart == Part::keys) {
        const PayloadRows<Format, kPart> rows = slice.rows();
        encode_payload<Format, kPart>(
            block, shared.encode, slice.channels, shared.made, [&](int token, int channel) {
              const int from = work.source_or_any(made, token);
              return rows.number(shared.slices[from / kBlockTokens], from % kBlockTokens, channel);
            });
      } else {
        detail::move_rows<Format>(block, work, made, slice.channels, shared);
      }
      block.sync();
      std::byte* payload = payload_of(*work.blocks[made]);
      slice.each_piece([&](std::ptrdiff_t to, std::ptrdiff_t from, std::ptrdiff_t bytes) {
        for (std::ptrdiff_t byte = block.thread() * kChunk; byte < bytes;
             byte += block.threads() * kChunk)
          *reinterpret_cast<Chunk*>(payload + to + byte) =
              *reinterpret_cast<const Chunk*>(shared.made + from + byte);
      });
      block.sync();
    }
  }
}

}  // namespace kvast::gpu
