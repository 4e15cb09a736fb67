// SPDX-License-Identifier: Apache-2.0
// Everything the verbs must know about a layer, and how its blocks come and go.
#pragma once

#include <algorithm>
#include <cstring>

#include "kvast/core/basis.h"
#include "kvast/core/block.h"
#include "kvast/host/account.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// Fixed at construction of the cache.
struct LayerPlan {
  Shape shape;
  StoragePlan formats;
  SideLayout side;
  const std::byte* fresh_state = nullptr;  ///< a default State, side.state_bytes long
  Basis key_basis{};
  Basis value_basis{};
  bool keeps_order = false;  ///< compacted positions: an evicted token leaves a hole, nothing moves
  bool reconstructs = false;  ///< keys are kept as they are before rotation, see reconstruct_keys

  int sealed_channels = 0;  ///< of keys in coded blocks, by their head's choice; 0: all

  bool prunes() const { return sealed_channels > 0; }
  /// Whether the head's tokens may be sealed: not before it chose its channels.
  bool can_seal(const Head& head) const { return !prunes() || head.channels != nullptr; }
  /// Numbers stored per key and per value.
  int key_width(bool coded = false) const {
    return coded && prunes() ? sealed_channels : key_basis.rank();
  }
  int value_width() const { return value_basis.rank(); }
  /// Numbers of a query as it meets keys.
  int query_width() const { return reconstructs ? shape.head_dim : key_width(); }
  /// Features of a row of attend's output.
  int output_dim() const { return formats.folded ? value_width() : shape.values(); }
  bool has_payload() const { return formats.dense_keys != nullptr; }
  bool is_coded() const { return formats.coded_keys != nullptr; }
  const Codec& key_codec(bool coded) const {
    return coded ? *formats.coded_keys : *formats.dense_keys;
  }
  const Codec& value_codec(bool coded) const {
    return coded ? *formats.coded_values : *formats.dense_values;
  }
  std::size_t key_bytes(bool coded) const {
    return has_payload() ? key_block_bytes(key_codec(coded), key_width(coded)) : 0;
  }
  std::size_t value_bytes(bool coded) const {
    return has_payload() ? value_block_bytes(value_codec(coded), value_width()) : 0;
  }
};

/// A layer's plan but for what depends on the cache's own options.
inline LayerPlan plan_layer(const Shape& shape, const StoragePlan& formats,
                            const SideLayout& side) {
  LayerPlan plan{.shape = shape, .formats = formats, .side = side};
  plan.key_basis = Basis(formats.key_basis, shape.head_dim);
  plan.value_basis = Basis(formats.value_basis, shape.values());
  if (formats.channels.chooses()) plan.sealed_channels = formats.channels.kept(shape.head_dim);
  return plan;
}

inline constexpr int kFirstListCapacity = 8;  ///< pointers: one 64-byte block

inline std::size_t list_bytes(int capacity) {
  return static_cast<std::size_t>(capacity) * sizeof(Block*);
}

/// Capacity of a list that must hold `count` blocks: doubles, so that growing is rare.
inline int list_capacity(int count) {
  int capacity = kFirstListCapacity;
  while (capacity < count) capacity *= 2;
  return capacity;
}

/// A new, empty block at the end of the list. Its bytes were reserved.
inline Block& push_block(const LayerPlan& plan, BlockList& list, bool coded, Account& account) {
  if (list.count == list.capacity) {
    const int capacity = list_capacity(list.count + 1);
    auto** data = reinterpret_cast<Block**>(account.take(list_bytes(capacity)));
    if (list.count > 0) std::memcpy(data, list.data, list_bytes(list.count));
    account.give(reinterpret_cast<std::byte*>(list.data), list_bytes(list.capacity));
    list.data = data;
    list.capacity = capacity;
  }
  auto* block = new (account.take(plan.side.bytes)) Block;
  if (plan.has_payload()) {
    block->keys = account.take(plan.key_bytes(coded));
    block->values = account.take(plan.value_bytes(coded));
  }
  list.data[list.count++] = block;
  return *block;
}

inline void free_block(const LayerPlan& plan, Block& block, bool coded, Account& account) {
  account.give(block.keys, plan.key_bytes(coded));
  account.give(block.values, plan.value_bytes(coded));
  account.give(reinterpret_cast<std::byte*>(&block), plan.side.bytes);
}

/// Frees every block without live tokens; the others keep their order. The array stays: what was
/// reserved for this pass counts on it (see release_empty_array).
inline void drop_empty_blocks(const LayerPlan& plan, BlockList& list, bool coded,
                              Account& account) {
  int kept = 0;
  for (int index = 0; index < list.count; ++index) {
    if (list[index].live == 0) {
      free_block(plan, list[index], coded, account);
    } else {
      list.data[kept++] = list.data[index];
    }
  }
  list.count = kept;
}

/// At the end of a commit: a list that holds nothing gives up a large array.
inline void release_empty_array(BlockList& list, Account& account) {
  if (list.count > 0 || list.capacity <= kFirstListCapacity) return;
  account.give(reinterpret_cast<std::byte*>(list.data), list_bytes(list.capacity));
  list = {};
}

/// Back to a smaller array, which this pass gave back when it grew: so it can be had again.
inline void shrink_list(BlockList& list, int capacity, Account& account) {
  if (list.capacity <= capacity) return;
  Block** smaller = nullptr;
  if (capacity > 0) {
    smaller = reinterpret_cast<Block**>(account.take(list_bytes(capacity)));
    std::memcpy(smaller, list.data, list_bytes(list.count));
  }
  account.give(reinterpret_cast<std::byte*>(list.data), list_bytes(list.capacity));
  list.data = smaller;
  list.capacity = capacity;
}

inline void clear_list(const LayerPlan& plan, BlockList& list, bool coded, Account& account) {
  for (int index = 0; index < list.count; ++index) free_block(plan, list[index], coded, account);
  account.give(reinterpret_cast<std::byte*>(list.data), list_bytes(list.capacity));
  list = {};
}

/// `to` becomes a copy of `from` that shares its payload. Bytes were reserved.
inline void share_list(const LayerPlan& plan, const BlockList& from, bool coded, BlockList& to,
                       Account& account) {
  if (from.data == nullptr) return;
  to.data = reinterpret_cast<Block**>(account.take(list_bytes(from.capacity)));
  to.capacity = from.capacity;
  to.live = from.live;
  for (; to.count < from.count; ++to.count) {
    std::byte* side = account.take(plan.side.bytes);
    std::memcpy(side, &from[to.count], plan.side.bytes);
    to.data[to.count] = reinterpret_cast<Block*>(side);
    account.share(to[to.count].keys, plan.key_bytes(coded));
    account.share(to[to.count].values, plan.value_bytes(coded));
  }
}

/// Before writing to a payload that a fork still reads: copy it.
inline void own_payload(const LayerPlan& plan, Block& block, bool coded, Account& account) {
  const auto own = [&](std::byte*& payload, std::size_t bytes) {
    if (payload == nullptr || !account.pool().is_shared(payload)) return;
    std::byte* copy = account.take(bytes);
    std::memcpy(copy, payload, bytes);
    account.give(payload, bytes);
    payload = copy;
  };
  own(block.keys, plan.key_bytes(coded));
  own(block.values, plan.value_bytes(coded));
}

/// What travels with a token besides its payload: position, policy state, norm, kind.
inline void move_side(const LayerPlan& plan, Block& from, int from_slot, Block& to, int to_slot) {
  const SideLayout& side = plan.side;
  to.position[to_slot] = from.position[from_slot];
  std::memcpy(side.states_of(to) + static_cast<std::size_t>(to_slot) * side.state_bytes,
              side.states_of(from) + static_cast<std::size_t>(from_slot) * side.state_bytes,
              side.state_bytes);
  if (side.norms != 0) side.norms_of(to)[to_slot] = side.norms_of(from)[from_slot];
  if (side.kinds != 0) side.kinds_of(to)[to_slot] = side.kinds_of(from)[from_slot];
}

}  // namespace kvast
