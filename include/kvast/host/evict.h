// SPDX-License-Identifier: Apache-2.0
// evict: tokens leave, and blocks that hold nothing any more are freed.
#pragma once

#include <span>
#include <vector>

#include "kvast/host/layer_plan.h"

namespace kvast {

/// A dense slot that was overwritten by another: what an engine with its own memory has to repeat.
struct Move {
  int from;
  int to;
};

/// Payload and side of one dense token to another dense slot of the head.
inline void move_token(const LayerPlan& plan, Block& from, int from_slot, Block& to, int to_slot,
                       Account& account) {
  if (plan.has_payload()) {
    own_payload(plan, to, false, account);
    plan.formats.dense_keys->copy_column(from.keys, from_slot, to.keys, to_slot, plan.key_width());
    const std::byte* source = from.values;
    const std::size_t stride = plan.formats.dense_values->tile_bytes(kBlockTokens, kBlockTokens);
    for_value_tiles(*plan.formats.dense_values, to.values, plan.value_width(),
                    [&](std::byte* tile, int, int channels) {
                      plan.formats.dense_values->copy_row(source, from_slot, tile, to_slot,
                                                          kBlockTokens, channels);
                      source += stride;
                    });
  }
  move_side(plan, from, from_slot, to, to_slot);
}

/// Removes dense slots (`victims`, ascending, 32 * dense block + slot): each hole is filled by the
/// last token that stays, so n tokens use ceil(n / 32) blocks and every move is made once. `moves`
/// may be null.
inline void fill_holes(const LayerPlan& plan, Head& head, std::span<const int> victims,
                       Account& account, std::vector<Move>* moves) {
  if (victims.empty()) return;
  BlockList& list = head.dense;
  int total = list.slots();
  const int stay = total - static_cast<int>(victims.size());
  std::size_t last_victim = victims.size();
  for (const int hole : victims) {
    if (hole >= stay) break;
    int from = --total;
    while (last_victim > 0 && victims[last_victim - 1] == from) {
      --last_victim;
      from = --total;
    }
    move_token(plan, list[from / kBlockTokens], from % kBlockTokens, list[hole / kBlockTokens],
               hole % kBlockTokens, account);
    if (moves != nullptr) moves->push_back({from, hole});
  }
  for (int index = stay / kBlockTokens; index < list.count; ++index) {
    const int used = std::clamp(stay - index * kBlockTokens, 0, kBlockTokens);
    list[index].used = used;
    list[index].live = used == kBlockTokens ? kAllLive : (1U << used) - 1U;
  }
  list.live = stay;
  drop_empty_blocks(plan, list, false, account);
}

/// Removes `victims` (ascending, 32 * block + slot over Head::block) from a head.
inline void evict_tokens(const LayerPlan& plan, Head& head, std::span<const int> victims,
                         Account& account, std::vector<int>& scratch, std::vector<Move>* moves) {
  const int coded_slots = head.coded.count * kBlockTokens;
  scratch.clear();
  for (const int victim : victims) {
    if (victim < coded_slots || plan.keeps_order) {
      head.block(victim / kBlockTokens).live &= ~(1U << (victim % kBlockTokens));
      --(victim < coded_slots ? head.coded : head.dense).live;
    } else {
      scratch.push_back(victim - coded_slots);
    }
  }
  fill_holes(plan, head, scratch, account, moves);
  if (plan.keeps_order) drop_empty_blocks(plan, head.dense, false, account);
  drop_empty_blocks(plan, head.coded, true, account);
}

}  // namespace kvast
