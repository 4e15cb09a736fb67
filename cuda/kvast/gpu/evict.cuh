// SPDX-License-Identifier: Apache-2.0
// evict: holes that tokens left are filled, and blocks that hold nothing any more are given back.
#pragma once

#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

namespace detail {

/// A thread block's layer and (sequence, head), of a grid of layers * most tables.
struct Place {
  const LayerView* layers = nullptr;  ///< device memory
  int most_tables = 1;                ///< of any of these layers

  template <class Block>
  KVAST_HD const LayerView& layer(const Block& block) const {
    return layers[block.index() / most_tables];
  }
  template <class Block>
  KVAST_HD int table(const Block& block) const {
    return block.index() % most_tables;
  }
};

}  // namespace detail

/// After tokens were dropped or sealed: blocks without live tokens go back; in dense blocks the
/// last tokens move into the holes, so that n tokens use ceil(n / 32) blocks.
struct Compact {
  static constexpr int kThreads = 128;
  static constexpr int kRound = 512;  ///< moves that are planned together
  struct Shared {
    int holes[kRound];
    int movers[kRound];
    int scratch[kThreads / kWarp];
  };
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::Place place{};

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.table(block) >= layer.tables()) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    Head& head = layer.head(place.table(block));
    drop_dead(block, layer, head.coded, true, shared);
    drop_dead(block, layer, head.dense, false, shared);
    if (layer.keeps_order || head.dense.live == head.dense.slots()) return;
    fill_holes(block, layer, head.dense, shared);
  }

 private:
  template <class Block>
  KVAST_HD static void drop_dead(const Block& block, const LayerView& layer, BlockList& list,
                                 bool coded, Shared& shared) {
    const int kept = thin_out(
        block, list, shared.scratch, [&](int at) { return list[at].live != 0; },
        [&](kvast::Block* one) { give_record(block, layer, one, coded); });
    if (block.thread() == 0) list.count = kept;
    block.sync();
  }

  template <class Block>
  KVAST_HD static void fill_holes(const Block& block, const LayerView& layer, BlockList& list,
                                  Shared& shared) {
    const int stay = list.live;
    const int keep = blocks_of(stay);
    const auto below_stay = [stay](int at) {
      const int slots = stay - at * kBlockTokens;
      return slots >= kBlockTokens ? kAllLive : slots <= 0 ? 0U : (1U << slots) - 1U;
    };
    for (int round = 0;; ++round) {
      const int holes = collect(block, 0, keep, round, shared.holes, shared.scratch,
                                [&](int at) { return ~list[at].live & below_stay(at); });
      collect(block, stay / kBlockTokens, list.count, round, shared.movers, shared.scratch,
              [&](int at) { return list[at].live & ~below_stay(at); });
      block.sync();
      const int planned = least_of(holes - round * kRound, kRound);
      for (int at = block.warp_index(); at < planned; at += block.warps())
        move(block, layer, list, shared.movers[at], shared.holes[at]);
      block.sync();
      if (holes <= (round + 1) * kRound) break;
    }
    for (int at = block.thread(); at < list.count; at += block.threads()) {
      if (at >= keep) {
        give_record(block, layer, list.data[at], false);
      } else {
        list[at].live = below_stay(at);
        list[at].used = least_of(stay - at * kBlockTokens, kBlockTokens);
      }
    }
    block.sync();
    if (block.thread() == 0) list.count = keep;
  }

  /// The slots that mask(block) names in blocks [first, end): all are counted, and those whose turn
  /// is this round are written to `slots`.
  template <class Block, class Mask>
  KVAST_HD static int collect(const Block& block, int first, int end, int round, int* slots,
                              int* scratch, const Mask& mask) {
    int counted = 0;
    for (; first < end; first += block.threads()) {
      const int at = first + block.thread();
      std::uint32_t bits = at < end ? mask(at) : 0U;
      const Scan scan = block_scan(block, count_bits(bits), scratch);
      int place_of = counted + scan.before - round * kRound;
      for (int slot = 0; bits != 0; ++slot, bits >>= 1U) {
        if ((bits & 1U) == 0) continue;
        if (place_of >= 0 && place_of < kRound) slots[place_of] = at * kBlockTokens + slot;
        ++place_of;
      }
      counted += scan.total;
    }
    return counted;
  }

  /// One warp.
  template <class Block>
  KVAST_HD static void move(const Block& block, const LayerView& layer, BlockList& list, int from,
                            int to) {
    const kvast::Block& source = list[from / kBlockTokens];
    kvast::Block& target = list[to / kBlockTokens];
    const int from_slot = from % kBlockTokens;
    const int to_slot = to % kBlockTokens;
    const int lane = block.warp().lane();
    copy_row(lane, dense_key(layer, source, from_slot), dense_key(layer, target, to_slot),
             layer.dense_key_bytes);
    copy_row(lane, dense_value(layer, source, from_slot), dense_value(layer, target, to_slot),
             layer.dense_value_bytes);
    move_side(layer.layout, lane, kWarp, source, from_slot, target, to_slot);
  }
  KVAST_HD static void copy_row(int lane, const std::byte* from, std::byte* to, int bytes) {
    for (int at = lane; at < bytes / static_cast<int>(sizeof(Chunk)); at += kWarp)
      reinterpret_cast<Chunk*>(to)[at] = reinterpret_cast<const Chunk*>(from)[at];
  }
};

}  // namespace kvast::gpu
