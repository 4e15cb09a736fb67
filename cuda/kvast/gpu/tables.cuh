// SPDX-License-Identifier: Apache-2.0
// What kernels know of a cache: for each (layer, sequence, kv head) a kvast::Head in device memory,
// whose lists point to kvast::Block records, which point to payload. Layer by layer, by value.
//
// Layout of payload on the device:
//   dense keys   [32 tokens][head_dim] elements, dense values [32 tokens][value_dim] elements: a
//                token is a row, 16-byte aligned where its bytes are a multiple of 16
//   coded keys, coded values: payload.h; the codes and metadata of the CPU
// Dense blocks are full but the last one, unless `keeps_order`; slots that hold no live token are
// finite numbers. Coded blocks, and under `keeps_order` dense ones, have holes: Block::live.
#pragma once

#include <type_traits>

#include "kvast/core/block.h"
#include "kvast/core/rotation.h"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/free_list.cuh"
#include "kvast/gpu/turn.h"

namespace kvast::gpu {

/// Of policies that keep none.
struct Stateless {};

static_assert(std::is_trivially_copyable_v<Head>, "heads are copied from and to a device as bytes");

/// The new tokens of one sequence in the pass that is open.
struct Rows {
  int first = 0;  ///< row of the caller's tensors
  int count = 0;
};

/// One layer for all sequences of a cache.
struct LayerView {
  Head* heads = nullptr;             ///< [sequences, head_count]
  const int* lengths = nullptr;      ///< [sequences] positions before the pass
  const Rows* rows = nullptr;        ///< [sequences]
  const int* prompt_ends = nullptr;  ///< [sequences] positions from there on are generated
  Turn* turns = nullptr;             ///< [sequences, head_count]
  Counters* counters = nullptr;
  int sequences = 0;
  int head_count = 0;  ///< kv heads
  int head_dim = 0;
  int value_dim = 0;
  int layer = 0;
  bool keeps_order = false;  ///< holes of dense blocks are not filled (compacted positions)
  int residual = 0;          ///< newest tokens that are not sealed
  int first_coded = 0;       ///< positions below it are never sealed
  int dense_key_bytes = 0;   ///< of one token
  int dense_value_bytes = 0;
  SideLayout layout{};        ///< of a record: what follows its kvast::Block
  std::int64_t ranks_at = 0;  ///< in a record, 32 ranks of its tokens; 0: nothing is ranked
  Rotation key_rotation{};    ///< of all that is stored; dim 0: none
  Rotation value_rotation{};
  BlockClass side{};
  BlockClass dense_keys{};
  BlockClass dense_values{};
  BlockClass coded_keys{};
  BlockClass coded_values{};

  KVAST_HD int tables() const { return sequences * head_count; }
  /// `table` is sequence * head_count + head.
  KVAST_HD Head& head(int table) const { return heads[table]; }
  /// [32], of dead slots undefined.
  KVAST_HD float* ranks_of(kvast::Block& block) const {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(&block) + ranks_at);
  }
  /// The token in a slot of a head's block, as policies see it.
  KVAST_HD Token token(kvast::Block& block, int table, int slot, int newest_position) const {
    return token_at(layout, block, slot, newest_position, layer, table % head_count);
  }
  /// Position of the last token once the pass is over; -1 for none.
  KVAST_HD int newest(int sequence) const { return lengths[sequence] + rows[sequence].count - 1; }
  /// Tokens that a new query sees are those at positions up to its own.
  KVAST_HD int position(int sequence, int row) const {
    return lengths[sequence] + row - rows[sequence].first;
  }
};

/// Token `slot` of a dense block.
KVAST_HD inline std::byte* dense_key(const LayerView& layer, const kvast::Block& block, int slot) {
  return block.keys + static_cast<std::ptrdiff_t>(slot) * layer.dense_key_bytes;
}
KVAST_HD inline std::byte* dense_value(const LayerView& layer, const kvast::Block& block,
                                       int slot) {
  return block.values + static_cast<std::ptrdiff_t>(slot) * layer.dense_value_bytes;
}

/// What travels with a token besides its payload: position, policy state, norm and kind; not its
/// rank. Done by the lanes [0, lanes) of whoever calls.
KVAST_HD inline void move_side(const SideLayout& side, int lane, int lanes,
                               const kvast::Block& from, int from_slot, kvast::Block& to,
                               int to_slot) {
  auto& source = const_cast<kvast::Block&>(from);  // the layout's accessors know no other
  const auto bytes = static_cast<int>(side.state_bytes);
  const std::byte* state = side.states_of(source) + std::ptrdiff_t{from_slot} * bytes;
  std::byte* into = side.states_of(to) + std::ptrdiff_t{to_slot} * bytes;
  for (int at = lane; at < bytes; at += lanes) into[at] = state[at];
  if (lane != 0) return;
  to.position[to_slot] = from.position[from_slot];
  if (side.norms != 0) side.norms_of(to)[to_slot] = side.norms_of(source)[from_slot];
  if (side.kinds != 0) side.kinds_of(to)[to_slot] = side.kinds_of(source)[from_slot];
}

/// Takes a record and payload for it. Null where a list was empty: then nothing is taken, and
/// Counters::missing says so.
template <class Block>
KVAST_HD kvast::Block* take_record(const Block& block, const LayerView& layer, bool coded) {
  const BlockClass& of_keys = coded ? layer.coded_keys : layer.dense_keys;
  const BlockClass& of_values = coded ? layer.coded_values : layer.dense_values;
  auto* record = reinterpret_cast<kvast::Block*>(take_block(block, layer.side));
  std::byte* keys = take_block(block, of_keys);
  std::byte* values = take_block(block, of_values);
  if (record == nullptr || keys == nullptr || values == nullptr) {
    if (record != nullptr) give_block(block, layer.side, reinterpret_cast<std::byte*>(record));
    if (keys != nullptr) give_block(block, of_keys, keys);
    if (values != nullptr) give_block(block, of_values, values);
    return nullptr;
  }
  record->keys = keys;
  record->values = values;
  record->live = 0;
  record->used = 0;
  return record;
}
template <class Block>
KVAST_HD void give_record(const Block& block, const LayerView& layer, kvast::Block* record,
                          bool coded) {
  give_block(block, coded ? layer.coded_keys : layer.dense_keys, record->keys);
  give_block(block, coded ? layer.coded_values : layer.dense_values, record->values);
  give_block(block, layer.side, reinterpret_cast<std::byte*>(record));
}

/// *at becomes `value`, unless it is more already.
template <class Block>
KVAST_HD void raise(const Block& block, int* at, int value) {
  auto* word = reinterpret_cast<unsigned*>(at);
  unsigned seen = 0;  // counts are not negative
  while (static_cast<int>(seen) < value) {
    const unsigned found = block.compare_exchange(word, seen, static_cast<unsigned>(value));
    if (found == seen) return;
    seen = found;
  }
}

/// Takes records for list[list.count .. blocks), without counting them. False where one is missing,
/// or the list has no room, as when more replays came than were reserved: then none is taken, and
/// Counters::missing says so. Every thread takes part; `shared`: see block_scan.
template <class Block>
KVAST_HD bool extend(const Block& block, const LayerView& layer, BlockList& list, int blocks,
                     bool coded, int* shared) {
  if (blocks <= list.count) {
    block.sync();  // all have looked at the count
    return true;
  }
  if (blocks > list.capacity) {
    if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
    return false;
  }
  int missing = 0;
  for (int at = list.count + block.thread(); at < blocks; at += block.threads()) {
    list.data[at] = take_record(block, layer, coded);
    missing += list.data[at] == nullptr ? 1 : 0;
  }
  if (block_scan(block, missing, shared).total == 0) {
    if (block.thread() == 0) raise(block, &layer.counters->longest, blocks);
    return true;
  }
  for (int at = list.count + block.thread(); at < blocks; at += block.threads()) {
    if (list.data[at] != nullptr) give_record(block, layer, list.data[at], coded);
  }
  return false;
}

/// Blocks of which stays(index) is false leave the list, and go(block) is told of each; the others
/// keep their order. Returns how many are left, which the list's count does not say yet. Every
/// thread takes part; `shared`: see block_scan.
template <class Block, class Stays, class Go>
KVAST_HD int thin_out(const Block& block, BlockList& list, int* shared, const Stays& stays,
                      const Go& go) {
  int kept = 0;
  for (int first = 0; first < list.count; first += block.threads()) {
    const int at = first + block.thread();
    kvast::Block* one = at < list.count ? list.data[at] : nullptr;
    const bool mine = one != nullptr && stays(at);
    const Scan scan = block_scan(block, mine ? 1 : 0, shared);
    if (mine) list.data[kept + scan.before] = one;
    if (one != nullptr && !mine) go(one);
    kept += scan.total;
  }
  block.sync();
  return kept;
}

/// Fills a head's ranks: rank_one(token, block, slot) for every live token. Every thread takes
/// part.
template <class Block, class RankOne>
KVAST_HD void fill_ranks(const Block& block, const LayerView& layer, int table,
                         const RankOne& rank_one) {
  const int newest = layer.newest(table / layer.head_count);
  const Head& head = layer.head(table);
  const int slot = block.warp().lane();
  for (int index = block.warp_index(); index < head.blocks(); index += block.warps()) {
    kvast::Block& one = head.block(index);
    if ((one.live >> slot & 1U) == 0) continue;
    layer.ranks_of(one)[slot] = rank_one(layer.token(one, table, slot, newest), one, slot);
  }
}

/// Gives every (layer, sequence, head) larger arrays of block pointers, or its first ones. Their
/// old ones may be released once the stream has passed this.
struct MoveLists {
  static constexpr int kThreads = 128;
  Head* heads = nullptr;
  kvast::Block** dense = nullptr;  ///< [heads, capacity]
  kvast::Block** coded = nullptr;  ///< the same, or null: nothing is sealed
  int capacity = 0;

  /// One block per head.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    Head& head = heads[block.index()];
    move(block, head.dense, dense);
    if (coded != nullptr) move(block, head.coded, coded);
  }

 private:
  template <class Block>
  KVAST_HD void move(Block& block, BlockList& list, kvast::Block** arrays) const {
    kvast::Block** to = arrays + static_cast<std::int64_t>(block.index()) * capacity;
    for (int at = block.thread(); at < list.count; at += block.threads()) to[at] = list.data[at];
    block.sync();
    if (block.thread() == 0) {
      list.data = to;
      list.capacity = capacity;
    }
  }
};

/// Forgets all tokens of some sequences: every block goes back.
struct ClearHeads {
  static constexpr int kThreads = 128;
  LayerView layer{};
  int first_sequence = 0;

  /// One block per (sequence, head).
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    Head& head = layer.head(first_sequence * layer.head_count + block.index());
    for (int at = block.thread(); at < head.blocks(); at += block.threads())
      give_record(block, layer, &head.block(at), at < head.coded.count);
    block.sync();
    if (block.thread() == 0) {
      head.coded.count = head.dense.count = 0;
      head.coded.live = head.dense.live = 0;
      layer.turns[first_sequence * layer.head_count + block.index()] = {};
    }
  }
};

}  // namespace kvast::gpu
