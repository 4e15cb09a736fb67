// SPDX-License-Identifier: Apache-2.0
// Smooths ranks along the sequence, before select. As pool_ranks of host/select.h.
#pragma once

#include "kvast/core/combine_ranks.h"
#include "kvast/gpu/evict.cuh"
#include "kvast/gpu/order.cuh"
#include "kvast/gpu/standing.cuh"
#include "kvast/gpu/turn.h"

namespace kvast::gpu {

/// Replaces the rank of every open token by its neighbourhood's. Neighbours are those in order of
/// position, which may lie in any blocks and be replaced at any time: so votes are first copied, in
/// order, to memory of the device. Shared memory has no room for those of a long prompt.
struct PoolRanks {
  static constexpr int kThreads = 1024;  // each pass over a head covers 32 positions of each
  using Shared = OrderShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::Place place{};
  const Turn* turns = nullptr;  ///< [layers, most tables]
  Pooling pooling{};
  float* votes = nullptr;   ///< [layers, most tables, stride], overwritten
  std::int64_t stride = 0;  ///< at least the live tokens of any head

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.table(block) >= layer.tables()) return;
    if (!turns[block.index()].acts || pooling.width <= 1) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const Head head = layer.head(place.table(block));
    if (head.live() > stride) {  // lists grew since the pass was captured
      if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
      return;
    }
    const int lane = block.warp().lane();
    float* mine = votes + block.index() * stride;
    // a token's turn comes before or after its rank is replaced, never in between
    const auto position_of = [&](int index) {
      kvast::Block& one = head.block(index);
      return is_open(standing_in(layer, one, lane)) ? one.position[lane] : kNoPosition;
    };
    const auto each = [&](const auto& visit) {
      return in_order(block, shared, 0, head.blocks(), kNoPosition, position_of,
                      [&](int index, int rank) {
                        if (rank >= 0) visit(layer.ranks_of(head.block(index))[lane], rank);
                      });
    };
    const int count = each([&](float rank, int at) { mine[at] = rank; });
    each([&](float& rank, int at) { rank = pooled_vote(mine, count, at, pooling); });
  }
};

}  // namespace kvast::gpu
