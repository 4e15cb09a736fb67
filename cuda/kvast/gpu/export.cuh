// SPDX-License-Identifier: Apache-2.0
// export: the live tokens of one sequence and layer, decoded, in order of position.
#pragma once

#include "kvast/gpu/encode_tile.cuh"
#include "kvast/gpu/order.cuh"
#include "kvast/gpu/rotate.cuh"
#include "kvast/gpu/tensor.h"

namespace kvast::gpu {

/// Keys, or values, of all heads of a sequence: row t of `to` is a head's t-th oldest live token.
template <Part kPart, DenseFormat Dense, class Coded>
struct Export {
  static constexpr int kThreads = 128;
  using Shared = OrderShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  LayerView layer{};
  int sequence = 0;
  OutputTensor to{};         ///< [tokens, heads, dim], strides filled in
  int most = 0x7FFFFFFF;     ///< rows that `to` has room for
  int* positions = nullptr;  ///< [heads, most] out, or null

  /// Grid: heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const int head_index = block.index();
    const Head& head = layer.head(sequence * layer.head_count + head_index);
    const auto warp = block.warp();
    in_order(block, shared, head, 0, head.blocks(), 0, most, [&](int index, int rank) {
      const kvast::Block& one = head.block(index);
      if (positions != nullptr && rank >= 0)
        positions[static_cast<std::int64_t>(head_index) * most + rank] = one.position[warp.lane()];
      if (to.data == nullptr) return;
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        const int row = warp.shuffle(rank, slot);
        if (row >= 0) write(one, index < head.coded.count, slot, row, head_index, warp);
      }
    });
  }

 private:
  template <class Warp>
  KVAST_HD void write(const kvast::Block& one, bool coded, int slot, int row, int head,
                      const Warp& warp) const {
    const int dim = kPart == Part::keys ? layer.head_dim : layer.value_dim;
    const auto* dense = reinterpret_cast<const typename Dense::Element*>(
        kPart == Part::keys ? dense_key(layer, one, slot) : dense_value(layer, one, slot));
    const PayloadRows<Coded, kPart> layout{dim};
    LaneVector<kvast::Shape::kMostDim / kWarp> token;
    token.each(warp.lane(), dim, [&](int channel, float& number) {
      number = coded ? layout.number(kPart == Part::keys ? one.keys : one.values, slot, channel)
                     : Dense::number(dense[channel]);
    });
    const Rotation& rotation = kPart == Part::keys ? layer.key_rotation : layer.value_rotation;
    if (rotation.dim != 0) token.undo(warp, rotation);
    token.each(warp.lane(), dim, [&](int channel, float number) {
      write_number(to, to.at(row, head) + channel, number);
    });
  }
};

}  // namespace kvast::gpu
