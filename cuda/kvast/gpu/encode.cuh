// SPDX-License-Identifier: Apache-2.0
// encode: the oldest waiting tokens of every head are sealed into coded blocks. Three launches:
// ChooseSealed, EncodeSealed for keys, and for values; then Compact (evict.cuh) frees what they
// leave.
#pragma once

#include "kvast/format/floats.h"
#include "kvast/gpu/encode_tile.cuh"
#include "kvast/gpu/evict.cuh"
#include "kvast/gpu/order.cuh"

namespace kvast::gpu {

/// Chooses the 32 * floor((n - residual) / 32) oldest of a head's n waiting tokens, takes coded
/// blocks for them, and clears their live bits in the dense ones. Until EncodeSealed has run, the
/// new blocks' `position` holds 32 * dense block + slot.
struct ChooseSealed {
  static constexpr int kThreads = 128;
  using Shared = OrderShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::Place place{};
  int* sealed = nullptr;  ///< [layers, most_tables] out: blocks

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.table(block) >= layer.tables()) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    Head& head = layer.head(place.table(block));
    // a sequence that has no part in the pass may be in the middle of a prompt
    const bool codes = layer.coded_keys.list != nullptr &&
                       layer.rows[place.table(block) / layer.head_count].count > 0;
    const int blocks =
        codes ? most_of(waiting(block, layer, head, shared) - layer.residual, 0) / kBlockTokens : 0;
    if (block.thread() == 0) sealed[block.index()] = blocks;
    if (blocks == 0) return;
    const int first = head.coded.count;
    if (!extend(block, layer, head.coded, first + blocks, true, shared.scratch)) {
      if (block.thread() == 0) sealed[block.index()] = 0;
      return;
    }
    for (int at = first + block.thread(); at < first + blocks; at += block.threads()) {
      head.coded[at].live = kAllLive;
      head.coded[at].used = kBlockTokens;
    }
    const auto warp = block.warp();
    in_order(block, shared, head, first, head.blocks(), layer.first_coded, blocks * kBlockTokens,
             [&](int index, int rank) {
               if (rank >= 0) {
                 head.coded.data[first + rank / kBlockTokens]->position[rank % kBlockTokens] =
                     (index - first) * kBlockTokens + warp.lane();
               }
               const std::uint32_t gone = warp.ballot(rank >= 0);
               if (warp.lane() == 0) head.block(index).live &= ~gone;
             });
    block.sync();
    if (block.thread() == 0) {
      head.coded.count = first + blocks;
      head.coded.live += blocks * kBlockTokens;
      head.dense.live -= blocks * kBlockTokens;
    }
  }

 private:
  template <class Block>
  KVAST_HD static int waiting(const Block& block, const LayerView& layer, const Head& head,
                              Shared& shared) {
    if (layer.first_coded == 0) return head.dense.live;
    int count = 0;
    for (int at = block.thread(); at < head.dense.count * kBlockTokens; at += block.threads()) {
      const kvast::Block& one = head.dense[at / kBlockTokens];
      const int slot = at % kBlockTokens;
      count += (one.live >> slot & 1U) != 0 && one.position[slot] >= layer.first_coded ? 1 : 0;
    }
    return block_scan(block, count, shared.scratch).total;
  }
};

/// Encodes what was chosen, a thread block per coded block. Values come last: they put positions
/// where sources were.
template <class Format, Part kPart, DenseFormat Waiting = F16>
struct EncodeSealed {
  static constexpr int kThreads = 128;
  using Shared = EncodeShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::Place place{};
  const int* sealed = nullptr;  ///< [layers, most_tables]
  int tables = 1;               ///< layers * most_tables
  int spread = 1;               ///< thread blocks per table

  /// Grid: tables * spread.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = block.index() % tables;
    const LayerView& layer = place.layers[table / place.most_tables];
    if (table % place.most_tables >= layer.tables()) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    Head& head = layer.head(table % place.most_tables);
    for (int at = block.index() / tables; at < sealed[table]; at += spread) {
      kvast::Block& made = head.coded[head.coded.count - sealed[table] + at];
      const auto source = [&](int token) {
        const int slot = made.position[token];
        const kvast::Block& one = head.dense[slot / kBlockTokens];
        return reinterpret_cast<const typename Waiting::Element*>(
            kPart == Part::keys ? dense_key(layer, one, slot % kBlockTokens)
                                : dense_value(layer, one, slot % kBlockTokens));
      };
      encode_payload<Format, kPart>(
          block, shared, kPart == Part::keys ? layer.head_dim : layer.value_dim,
          kPart == Part::keys ? made.keys : made.values,
          [&](int token, int channel) { return Waiting::number(source(token)[channel]); });
      if constexpr (kPart == Part::values) {
        block.sync();
        if (block.thread() < kBlockTokens) {
          const int slot = made.position[block.thread()];
          move_side(layer.layout, 0, 1, head.dense[slot / kBlockTokens], slot % kBlockTokens, made,
                    block.thread());
        }
      }
    }
  }
};

}  // namespace kvast::gpu
