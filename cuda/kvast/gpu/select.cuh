// SPDX-License-Identifier: Apache-2.0
// select: from ranks and a budget to the tokens that must go. The same for every policy.
#pragma once

#include "kvast/gpu/evict.cuh"
#include "kvast/gpu/lowest.cuh"
#include "kvast/gpu/turn.h"

namespace kvast::gpu {

/// Clears the live bit of every dropped token, and of the open ones with the lowest ranks until the
/// head's target or room is met. Pinned tokens stay even beyond the target. Ties: the newer token
/// stays. As select_victims of host/select.h.
struct Select {
  static constexpr int kThreads = 512;
  static constexpr int kKept = 288;  ///< blocks whose standings stay in shared memory
  struct Shared {
    LowestShared<kThreads> lowest;
    std::uint32_t standings[kKept][kWarp];
  };
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::Place place{};
  const Turn* turns = nullptr;  ///< [layers, most tables]

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.table(block) >= layer.tables()) return;
    const Turn turn = turns[block.index()];
    if (!turn.acts) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    Head& counted = layer.head(place.table(block));
    const Head head = counted;
    const int lane = block.warp().lane();
    Losses losses;
    const Tally tally =
        survey(block, layer, head, shared.lowest.tallies, [&](int index, std::uint32_t standing) {
          if (index < kKept) shared.standings[index][lane] = standing;
          losses.clear(block, head, index, standing == 0);
        });
    const bool limited = turn.room >= 0 || turn.target >= 0;
    const int room = turn.room >= 0 ? turn.room : most_of(0, turn.target - tally.pinned);
    const int excess = limited ? tally.open - room : 0;
    // each warp comes back to the blocks that it surveyed, and each lane to its slots
    const auto each = [&](const auto& visit) {
      for (int index = block.warp_index(); index < head.blocks(); index += block.warps())
        visit(head, index,
              index < kKept ? shared.standings[index][lane]
                            : standing_in(layer, head.block(index), lane));
    };
    if (excess == 1) {
      clear_oldest(block, counted, shared, tally.range.low, each);
    } else if (excess > 1) {
      const Threshold threshold = lowest_tokens(block, shared.lowest, tally.range, excess, each);
      each([&](const Head&, int index, std::uint32_t standing) {
        losses.clear(block, head, index,
                     is_open(standing) && threshold.exceeds(standing, head, index, lane));
      });
    }
    if (lane != 0) return;
    if (losses.coded > 0) block.fetch_add(&counted.coded.live, -losses.coded);
    if (losses.dense > 0) block.fetch_add(&counted.dense.live, -losses.dense);
  }

 private:
  /// Tokens that a warp cleared.
  struct Losses {
    int coded = 0;
    int dense = 0;

    /// Of block `index`, lane by lane for each slot.
    template <class Block>
    KVAST_HD void clear(const Block& block, const Head& head, int index, bool goes) {
      const std::uint32_t gone = block.warp().ballot(goes);
      if (gone == 0) return;
      if (block.warp().lane() == 0) head.block(index).live &= ~gone;
      (index < head.coded.count ? coded : dense) += count_bits(gone);
    }
  };

  /// A decode step under a budget: of the tokens with the lowest standing, one must go.
  template <class Block, class Each>
  KVAST_HD static void clear_oldest(const Block& block, Head& head, Shared& shared,
                                    std::uint32_t lowest, const Each& each) {
    const int lane = block.warp().lane();
    int oldest = 0x7FFFFFFF;
    int found = -1;
    each([&](const Head& lists, int index, std::uint32_t standing) {
      if (standing != lowest) return;
      const int position = lists.block(index).position[lane];
      if (found >= 0 && position > oldest) return;
      oldest = position;
      found = index;
    });
    // no two tokens of a head have one position
    if (block_least(block, oldest, shared.lowest.scratch) != oldest || found < 0) return;
    head.block(found).live &= ~(1U << lane);
    block.fetch_add(found < head.coded.count ? &head.coded.live : &head.dense.live, -1);
  }
};

}  // namespace kvast::gpu
