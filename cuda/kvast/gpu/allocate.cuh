// SPDX-License-Identifier: Apache-2.0
// allocate: one budget for all heads of a layer, split by what their tokens are worth. As
// allocate_budget of host/allocate.h.
#pragma once

#include "kvast/core/stakes.h"
#include "kvast/gpu/lowest.cuh"
#include "kvast/gpu/sequence_place.cuh"

namespace kvast::gpu {

/// Replaces the target of each head of a sequence, so that all keep heads * target tokens together
/// (all of them, where pins ask for more). Without a target they stay as they are. The heads act
/// together.
struct AllocateBudget {
  /// A head's tokens that compete with those of other heads.
  struct Rivals {
    Range range;          ///< standings of its open tokens
    Threshold threshold;  ///< those below it: its floor is left out
    int tied = 0;         ///< one of them is at the threshold of all heads
  };
  static constexpr int kThreads = 1024;
  struct Shared {
    LowestShared<kThreads> lowest;
    int room;
    int left;  ///< of it beyond floors
  };
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  detail::SequencePlace place{};
  Turn* turns = nullptr;  ///< [layers, most tables]
  Allocation allocation{};
  Stake* stakes = nullptr;   ///< [layers, most tables], overwritten
  Rivals* rivals = nullptr;  ///< the same

  /// Grid: layers * most_sequences.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.sequence(block) >= layer.sequences) return;
    const Turn first = turns[place.entry(block)];
    if (!first.acts || first.target < 0) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const Heads heads{&layer, &layer.head(place.sequence(block) * layer.head_count),
                      stakes + place.entry(block), rivals + place.entry(block)};
    const Range range = survey_heads(block, heads, shared);
    if (block.thread() == 0) {
      shared.room = open_room(heads.stakes, heads.count(), first.target);
      shared.left = set_floors(heads.stakes, heads.count(), allocation, first.target, shared.room);
    }
    block.sync();
    std::int64_t all = 0;
    for (int head = 0; head < heads.count(); ++head) {
      leave_out_floor(block, heads, head, shared);
      all += heads.stakes[head].most - heads.stakes[head].floor;
    }
    block.sync();
    const auto going = static_cast<int>(all - least_of<std::int64_t>(all, shared.left));
    Threshold threshold;
    if (going > 0) {
      threshold = lowest_tokens(block, shared.lowest, range, going, [&](const auto& visit) {
        for (int head = 0; head < heads.count(); ++head) each_rival(block, heads, head, visit);
      });
    }
    for (int head = 0; head < heads.count(); ++head) count_best(block, heads, head, threshold);
    block.sync();
    if (block.thread() == 0) {
      // of equal tokens of several heads those of the last heads go
      for (int head = heads.count() - 1; head >= 0 && threshold.ties > 0; --head) {
        heads.stakes[head].best -= heads.rivals[head].tied;
        threshold.ties -= heads.rivals[head].tied;
      }
      set_parts(heads.stakes, heads.count(), allocation, shared.room);
    }
    block.sync();
    for (int head = block.thread(); head < heads.count(); head += block.threads())
      turns[place.entry(block) + head].target = heads.stakes[head].pinned + heads.stakes[head].part;
  }

 private:
  /// Those of one sequence, and what stands for them in our arrays.
  struct Heads {
    const LayerView* layer;
    const Head* lists;
    Stake* stakes;
    Rivals* rivals;

    KVAST_HD int count() const { return layer->head_count; }
  };

  /// Counts every head's tokens. Returns the range of all standings.
  template <class Block>
  KVAST_HD static Range survey_heads(const Block& block, const Heads& heads, Shared& shared) {
    Range range;
    for (int head = 0; head < heads.count(); ++head) {
      const Head lists = heads.lists[head];
      const Tally tally =
          survey(block, *heads.layer, lists, shared.lowest.tallies, [](int, std::uint32_t) {});
      range.add(tally.range);
      if (block.thread() != 0) continue;
      heads.stakes[head] = {};
      heads.stakes[head].most = tally.open;
      heads.stakes[head].pinned = tally.pinned;
      heads.rivals[head] = {.range = tally.range, .threshold = {.standing = kPinned}};
    }
    return range;
  }

  /// Has warps call visit(head, index, standing) for a head's tokens, kAbsent for those that are no
  /// rivals of other heads'.
  template <class Block, class Visit>
  KVAST_HD static void each_rival(const Block& block, const Heads& heads, int head,
                                  const Visit& visit) {
    const Head lists = heads.lists[head];
    const Threshold threshold = heads.rivals[head].threshold;
    const int lane = block.warp().lane();
    for (int index = block.warp_index(); index < lists.blocks(); index += block.warps()) {
      const std::uint32_t standing = standing_in(*heads.layer, lists.block(index), lane);
      const bool takes_part = is_open(standing) && threshold.exceeds(standing, lists, index, lane);
      visit(lists, index, takes_part ? standing : kAbsent);
    }
  }

  /// A head's best tokens are no rivals; all of its open ones were until now.
  template <class Block>
  KVAST_HD static void leave_out_floor(const Block& block, const Heads& heads, int head,
                                       Shared& shared) {
    const Stake stake = heads.stakes[head];
    if (stake.floor == 0) return;
    Threshold threshold;
    if (stake.floor < stake.most) {
      threshold =
          lowest_tokens(block, shared.lowest, heads.rivals[head].range, stake.most - stake.floor,
                        [&](const auto& visit) { each_rival(block, heads, head, visit); });
    }
    if (block.thread() == 0) heads.rivals[head].threshold = threshold;
  }

  /// Adds up Stake::best: rivals that are not below the threshold of all heads.
  template <class Block>
  KVAST_HD static void count_best(const Block& block, const Heads& heads, int head,
                                  Threshold threshold) {
    const auto warp = block.warp();
    const int lane = warp.lane();
    int best = 0;
    each_rival(block, heads, head, [&](const Head& lists, int index, std::uint32_t standing) {
      const bool rival = standing != kAbsent;
      best += count_bits(warp.ballot(rival && !threshold.exceeds(standing, lists, index, lane)));
      if (rival && threshold.ties > 0 && threshold.equals(standing, lists, index, lane))
        heads.rivals[head].tied = 1;  // by one thread: no two tokens of a head have one position
    });
    if (lane == 0 && best > 0) block.fetch_add(&heads.stakes[head].best, best);
  }
};

}  // namespace kvast::gpu
