// SPDX-License-Identifier: Apache-2.0
// One set per layer: heads exchange their ranks. As share_ranks of host/select.h.
#pragma once

#include "kvast/core/combine_ranks.h"
#include "kvast/gpu/block.cuh"
#include "kvast/gpu/sequence_place.cuh"

namespace kvast::gpu {

/// Every head's rank becomes that of all heads of its layer and sequence (shared_rank). They hold
/// the same tokens in the same slots, and act together.
struct ShareRanks {
  static constexpr int kThreads = 512;
  detail::SequencePlace place{};
  const Turn* turns = nullptr;  ///< [layers, most tables]

  /// Grid: layers * most_sequences.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.sequence(block) >= layer.sequences || !turns[place.entry(block)].acts) return;
    if (layer.counters->missing != 0) return;  // heads may have unlike many blocks
    const int lane = block.warp().lane();
    const Head* heads = &layer.head(place.sequence(block) * layer.head_count);
    for (int index = block.warp_index(); index < heads[0].blocks(); index += block.warps()) {
      if ((heads[0].block(index).live >> lane & 1U) == 0) continue;
      float sum = 0.0F;  // in the order of heads: rounding depends on it
      std::int32_t highest = kDropKey;
      std::int32_t lowest = kPinKey;
      for (int head = 0; head < layer.head_count; ++head) {
        const float rank = layer.ranks_of(heads[head].block(index))[lane];
        highest = most_of(highest, rank_key(rank));
        lowest = least_of(lowest, rank_key(rank));
        sum += rank;
      }
      const float shared = shared_rank(sum, static_cast<float>(layer.head_count), highest, lowest);
      for (int head = 0; head < layer.head_count; ++head)
        layer.ranks_of(heads[head].block(index))[lane] = shared;
    }
  }
};

}  // namespace kvast::gpu
