// SPDX-License-Identifier: Apache-2.0
// Which heads a thread block decides together.
#pragma once

#include "kvast/gpu/tables.cuh"
#include "kvast/gpu/turn.h"

namespace kvast::gpu::detail {

/// A thread block's layer and sequence, of a grid of layers * most sequences.
struct SequencePlace {
  const LayerView* layers = nullptr;  ///< device memory
  int most_sequences = 1;             ///< of any of these layers
  int most_tables = 1;                ///< as Place has it

  template <class Block>
  KVAST_HD const LayerView& layer(const Block& block) const {
    return layers[block.index() / most_sequences];
  }
  template <class Block>
  KVAST_HD int sequence(const Block& block) const {
    return block.index() % most_sequences;
  }
  /// The entry of the sequence's first head in an array [layers, most tables].
  template <class Block>
  KVAST_HD std::int64_t entry(const Block& block) const {
    return static_cast<std::int64_t>(block.index() / most_sequences) * most_tables +
           static_cast<std::int64_t>(sequence(block)) * layer(block).head_count;
  }
};

}  // namespace kvast::gpu::detail
