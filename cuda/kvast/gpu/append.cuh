// SPDX-License-Identifier: Apache-2.0
// append: the new tokens of all sequences and heads of a layer arrive at the tails of dense blocks.
#pragma once

#include "kvast/core/group.h"
#include "kvast/core/rope.h"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/rotate.cuh"
#include "kvast/gpu/tables.cuh"
#include "kvast/gpu/tensor.h"

namespace kvast::gpu {

namespace detail {

/// The largest magnitude that both formats hold.
template <class Format>
constexpr float largest_of() {
  if constexpr (DenseFormat<Format>) return Format::kLargest;
  return kHalfMax;
}
template <class One, class Other>
constexpr float largest() {
  return std::min(largest_of<One>(), largest_of<Other>());
}

}  // namespace detail

/// Keys are stored rotated by their slot (compacted positions).
struct SlotRope {
  const float* angles = nullptr;  ///< [32 slots, width / 2, (cosine, sine)]; null: no rotation
  int width = 0;
  Pairing pairing = Pairing::halves;
  float scale = 1.0F;

  /// Feature `dim` of the key at `from`, turned by `slot`. The same bits as the CPU's RopeTable.
  KVAST_HD float turned(const Tensor& keys, std::int64_t from, int dim, int slot) const {
    const float number = read_number(keys, from + dim);
    if (angles == nullptr || dim >= width) return number;
    const int pairs = width / 2;
    const int pair = pairing == Pairing::halves ? dim % pairs : dim / 2;
    const bool is_first = pairing == Pairing::halves ? dim < pairs : dim % 2 == 0;
    const int apart = pairing == Pairing::halves ? pairs : 1;
    float first = is_first ? number : read_number(keys, from + dim - apart);
    float second = is_first ? read_number(keys, from + dim + apart) : number;
    const float* angle = angles + (static_cast<std::ptrdiff_t>(slot) * pairs + pair) * 2;
    turn_pair(first, second, angle[0] * scale, angle[1] * scale);
    return is_first ? first : second;
  }
};

KVAST_HD inline bool fits(float number, float largest) {
  return (bits_as<std::uint32_t>(number) & 0x7FFFFFFFU) <= bits_as<std::uint32_t>(largest);
}

/// What is not finite, or beyond `largest`, is stored as 0 and counted: it must not poison its
/// neighbours, and a kernel cannot refuse.
template <class Block>
KVAST_HD float storable(const Block& block, float number, float largest, Counters* counters) {
  if (fits(number, largest)) return number;
  block.fetch_add(&counters->refused, 1);
  return 0.0F;
}

/// Of many rows per sequence, one launch opens their slots and a second one, of many blocks, writes
/// them; a decode step does both at once. `State`: the policy's.
template <DenseFormat Format, class State = Stateless>
struct Append {
  static constexpr int kThreads = 128;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  LayerView layer{};
  Tensor keys{};                     ///< [rows, heads, head_dim], strides filled in
  Tensor values{};                   ///< [rows, heads, value_dim]
  const TokenKind* kinds = nullptr;  ///< [rows]; null: other
  SlotRope rope{};
  float largest_key = Format::kLargest;
  float largest_value = Format::kLargest;
  bool opens = true;
  bool writes = true;
  int spread = 1;  ///< blocks per (sequence, head); 1 where it opens

  /// Grid: sequences * heads * spread.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = block.index() / spread;
    const Rows rows = layer.rows[table / layer.head_count];
    if (rows.count == 0) return;
    BlockList& list = layer.head(table).dense;
    if (opens && !open(block, list, table / layer.head_count, rows)) return;
    if (!writes) return;
    // a launch before this one should have opened the slots
    if (!opens && layer.counters->missing != 0) return;
    const int base = list.slots() - rows.count;
    for (int row = block.index() % spread; row < rows.count; row += spread) {
      kvast::Block& to = list[(base + row) / kBlockTokens];
      write(block, to, (base + row) % kBlockTokens, rows.first + row, table % layer.head_count);
    }
  }

 private:
  using Stored = typename Format::Element;

  /// Slots for more tokens. False where a block is missing.
  template <class Block>
  KVAST_HD bool open(const Block& block, BlockList& list, int sequence, const Rows& rows) const {
    const int before = list.slots();
    const int after = before + rows.count;
    const int blocks = blocks_of(after);
    if (!extend(block, layer, list, blocks, false, reinterpret_cast<int*>(block.shared())))
      return false;
    if (blocks > list.count && after % kBlockTokens != 0) clear(block, *list.data[blocks - 1]);
    for (int at = before / kBlockTokens + block.thread(); at < blocks; at += block.threads()) {
      kvast::Block& one = *list.data[at];
      const int used = least_of(after - at * kBlockTokens, kBlockTokens);
      for (int slot = most_of(before - at * kBlockTokens, 0); slot < used; ++slot) {
        const int row = at * kBlockTokens + slot - before;
        one.position[slot] = layer.lengths[sequence] + row;
        one.live |= 1U << slot;
        if constexpr (!std::is_empty_v<State>)
          reinterpret_cast<State*>(layer.layout.states_of(one))[slot] = State{};
        if (layer.layout.kinds != 0)
          layer.layout.kinds_of(one)[slot] =
              kinds != nullptr ? kinds[rows.first + row] : TokenKind::other;
      }
      one.used = used;
    }
    block.sync();
    if (block.thread() == 0) {
      list.count = blocks;
      list.live += rows.count;
    }
    block.sync();
    return true;
  }

  /// Attention multiplies slots without a token by zero: they must be numbers.
  template <class Block>
  KVAST_HD void clear(const Block& block, kvast::Block& one) const {
    const auto zero = [&](std::byte* payload, int row_bytes) {
      auto* chunks = reinterpret_cast<Chunk*>(payload);
      const int count = row_bytes * kBlockTokens / static_cast<int>(sizeof(Chunk));
      for (int at = block.thread(); at < count; at += block.threads()) chunks[at] = {};
    };
    zero(one.keys, layer.dense_key_bytes);
    zero(one.values, layer.dense_value_bytes);
  }

  template <class Block>
  KVAST_HD void write(const Block& block, kvast::Block& to, int slot, int row, int head) const {
    auto* key = reinterpret_cast<Stored*>(dense_key(layer, to, slot));
    auto* value = reinterpret_cast<Stored*>(dense_value(layer, to, slot));
    const std::int64_t key_at = keys.at(row, head);
    const std::int64_t value_at = values.at(row, head);
    if (layer.layout.norms != 0 && block.thread() == 0)
      layer.layout.norms_of(to)[slot] = norm(key_at);
    if (layer.key_rotation.dim != 0) {  // then no slot turns keys
      if (block.warp_index() == 0)
        write_rotated(block, keys, key_at, largest_key, layer.key_rotation, key);
      if (block.warp_index() == 1)
        write_rotated(block, values, value_at, largest_value, layer.value_rotation, value);
      return;
    }
    for (int dim = block.thread(); dim < layer.head_dim; dim += block.threads()) {
      key[dim] = Format::element(
          storable(block, rope.turned(keys, key_at, dim, slot), largest_key, layer.counters));
    }
    for (int dim = block.thread(); dim < layer.value_dim; dim += block.threads()) {
      value[dim] = Format::element(
          storable(block, read_number(values, value_at + dim), largest_value, layer.counters));
    }
  }

  /// L2 norm of a key as it arrived, summed in the CPU's order: squares of floats are exact.
  KVAST_HD float norm(std::int64_t at) const {
    double squares = 0.0;
    for (int dim = 0; dim < layer.head_dim; ++dim) {
      const float number = read_number(keys, at + dim);
      if (fits(number, largest_key))
        squares += static_cast<double>(number) * static_cast<double>(number);
    }
    return static_cast<float>(least_of(square_root(squares), kMostNorm));
  }

  /// By one warp.
  template <class Block>
  KVAST_HD void write_rotated(const Block& block, const Tensor& from, std::int64_t at,
                              float largest, const Rotation& rotation, Stored* to) const {
    using Vector = LaneVector<kvast::Shape::kMostDim / kWarp>;
    const auto warp = block.warp();
    Vector vector;
    vector.each(warp.lane(), rotation.dim, [&](int dim, float& number) {
      number = storable(block, read_number(from, at + dim), largest, layer.counters);
    });
    vector.rotate(warp, rotation);
    vector.each(warp.lane(), rotation.dim,
                [&](int dim, float& number) { to[dim] = Format::element(number); });
  }
};

}  // namespace kvast::gpu
