// SPDX-License-Identifier: Apache-2.0
// append: tokens arrive at the tail of a head's dense blocks.
#pragma once

#include <cmath>
#include <span>

#include "kvast/core/rope.h"
#include "kvast/core/rope_levels.h"
#include "kvast/core/view.h"
#include "kvast/host/layer_plan.h"

namespace kvast {

/// One vector of the caller's tensor as floats. `view` has its strides filled in.
inline void read_vector(const View& view, int token, int head, int dim, float* to) {
  read_numbers(view, token * view.token_stride + head * view.head_stride, dim, to);
}

/// The first number that is not finite or that the format cannot hold, or 0 if there is none: such
/// numbers never reach a block, where they would poison its neighbours.
inline float first_unstorable(const float* numbers, int dim, float largest) {
  float worst = 0.0F;
  for (int index = 0; index < dim; ++index) {
    // by bits, so that -ffast-math keeps the test
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(numbers[index]) & 0x7FFFFFFFU;
    if (magnitude > std::bit_cast<std::uint32_t>(largest)) worst = numbers[index];
  }
  return worst;
}

/// What arrives in one pass, for one layer.
struct Arrivals {
  View keys;    ///< strides filled in; null data: External storage that needs no norms
  View values;  ///< null data: External storage
  std::span<const int> positions;
  std::span<const TokenKind> kinds{};  ///< empty: other
  const RopeTable* rope = nullptr;  ///< compacted positions: keys are stored rotated by their slot
  const RopeLevels* levels = nullptr;  ///< unrotated positions: keys are rotated to their own, but
                                       ///< where the plan says that it reconstructs them
};

/// Writes all tokens of one head. Blocks were reserved.
inline void append_tokens(const LayerPlan& plan, Head& head, int head_index,
                          const Arrivals& arrivals, Account& account) {
  alignas(64) float numbers[512];
  const SideLayout& side = plan.side;
  head.capacity_before = head.dense.capacity;
  for (int token = 0; token < static_cast<int>(arrivals.positions.size()); ++token) {
    BlockList& list = head.dense;
    if (list.count == 0 || list[list.count - 1].used == kBlockTokens)
      push_block(plan, list, false, account);
    Block& block = list[list.count - 1];
    const int slot = block.used;
    own_payload(plan, block, false, account);
    if (arrivals.keys.data != nullptr) {
      read_vector(arrivals.keys, token, head_index, plan.shape.head_dim, numbers);
      if (side.norms != 0) {
        double squares = 0.0;
        for (int dim = 0; dim < plan.shape.head_dim; ++dim)
          squares += static_cast<double>(numbers[dim]) * static_cast<double>(numbers[dim]);
        side.norms_of(block)[slot] = static_cast<float>(std::min(std::sqrt(squares), kMostNorm));
      }
      if (arrivals.rope != nullptr) arrivals.rope->rotate(numbers, slot);
      if (arrivals.levels != nullptr && !plan.reconstructs)
        arrivals.levels->rotate(numbers, arrivals.positions[static_cast<std::size_t>(token)]);
      plan.key_basis.apply(head_index, numbers);
    }
    if (plan.has_payload()) {
      plan.formats.dense_keys->write_column(numbers, block.keys, plan.key_width(), slot);
      read_vector(arrivals.values, token, head_index, plan.shape.values(), numbers);
      plan.value_basis.apply(head_index, numbers);
      for_value_tiles(*plan.formats.dense_values, block.values, plan.value_width(),
                      [&](std::byte* tile, int first, int channels) {
                        plan.formats.dense_values->write_row(numbers + first, tile, slot, channels);
                      });
    }
    block.position[slot] = arrivals.positions[static_cast<std::size_t>(token)];
    std::memcpy(side.states_of(block) + static_cast<std::size_t>(slot) * side.state_bytes,
                plan.fresh_state, side.state_bytes);
    if (side.kinds != 0)
      side.kinds_of(block)[slot] = arrivals.kinds.empty()
                                       ? TokenKind::other
                                       : arrivals.kinds[static_cast<std::size_t>(token)];
    block.live |= 1U << slot;
    ++block.used;
    ++list.live;
  }
}

/// Takes back the newest `count` tokens of a head: a pass that is dropped before its first commit.
inline void take_back(const LayerPlan& plan, Head& head, int count, Account& account) {
  while (count > 0) {
    Block& block = head.dense[head.dense.count - 1];
    const int here = std::min(count, static_cast<int>(block.used));
    for (int slot = block.used - here; slot < block.used; ++slot) {
      block.live &= ~(1U << slot);
      block.position[slot] = 0;  // dead slots are read as well, e.g. the bias at their position
    }
    block.used -= here;
    head.dense.live -= here;
    count -= here;
    if (block.used == 0) {
      free_block(plan, block, false, account);
      --head.dense.count;
    }
  }
  shrink_list(head.dense, head.capacity_before, account);
}

}  // namespace kvast
