// SPDX-License-Identifier: Apache-2.0
// Which token lies in which slot: for engines that bring their own weights.
#pragma once

#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Writes the position of the token in each slot of a head, or -1 where a slot holds none.
struct ListSlots {
  static constexpr int kThreads = 128;
  LayerView layer{};
  int table = 0;
  int* to = nullptr;  ///< [32 * the head's blocks]

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const Head& head = layer.head(table);
    for (int at = block.thread(); at < head.blocks() * kBlockTokens; at += block.threads()) {
      const kvast::Block& one = head.block(at / kBlockTokens);
      const int slot = at % kBlockTokens;
      to[at] = (one.live >> slot & 1U) != 0 ? one.position[slot] : -1;
    }
  }
};

}  // namespace kvast::gpu
