// SPDX-License-Identifier: Apache-2.0
// repack: coded blocks of which many slots are dead become fewer, fuller ones, as host/repack.h
// does it. What is merged is written to the memory of the first of the merged blocks, so that no
// block is taken, and one that the pool has not can never be missed.
#pragma once

#include "kvast/gpu/evict.cuh"
#include "kvast/gpu/repack_payload.cuh"

namespace kvast::gpu {

/// After Compact. A head that needs nothing costs a read of it.
template <class Keys, class Values>
struct Repack {
  static constexpr int kThreads = kSliceChannels;
  struct Shared {
    MergeWork work;
    int scratch[kThreads / kWarp];
    MergeShared<Keys, Values> payload;  ///< or, when these are done, records of the merged blocks
  };
  /// Bytes of shared memory, where records have `side_bytes`, SideLayout::bytes.
  static constexpr std::size_t shared_bytes(std::size_t side_bytes) {
    return offsetof(Shared, payload) +
           most_of(sizeof(MergeShared<Keys, Values>), kRepackBlocks * record_bytes(side_bytes));
  }
  detail::Place place{};

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    if (place.table(block) >= layer.tables()) return;
    Head& head = layer.head(place.table(block));
    if (layer.coded_keys.list == nullptr || layer.keeps_order || !wants_repack(head)) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    BlockList& list = head.coded;
    const int target = repack_target(list);
    while (list.count > target) {
      const Merge merge = choose(block, list, list.count - target, shared);
      if (merge.count == 0) return;
      put_in_order(block, merge, shared);
      merge_payloads<Keys, Part::keys>(block, shared.work, merge, layer.head_dim, shared.payload,
                                       [](const kvast::Block& one) { return one.keys; });
      merge_payloads<Values, Part::values>(block, shared.work, merge, layer.value_dim,
                                           shared.payload,
                                           [](const kvast::Block& one) { return one.values; });
      move_sides(block, layer, merge, shared);
      replace(block, layer, list, merge, shared);
    }
  }

 private:
  static constexpr int kNone = 0x7FFFFFFF;

  KVAST_HD static constexpr std::size_t record_bytes(std::size_t side_bytes) {
    return (side_bytes + sizeof(Chunk) - 1) / sizeof(Chunk) * sizeof(Chunk);
  }

  /// The sparsest blocks of the list: a thread keeps the least keys of its own, then the least of
  /// all leave them one by one.
  template <class Block>
  KVAST_HD static Merge choose(const Block& block, const BlockList& list, int surplus,
                               Shared& shared) {
    int mine[kRepackBlocks];
    for (int& key : mine) key = kNone;
    for (int at = block.thread(); at < list.count; at += block.threads()) {
      const std::uint32_t live = list[at].live;
      int key = live == kAllLive ? kNone : merge_key(count_bits(live), at);
      for (int& other : mine) {
        const int less = least_of(key, other);
        key = most_of(key, other);
        other = less;
      }
    }
    int candidates = 0;
    for (int found = 0; found < kRepackBlocks; ++found) {
      const int least = block_least(block, mine[0], shared.scratch);
      if (least == kNone) break;
      if (block.thread() == 0) shared.work.keys[found] = least;
      ++candidates;
      if (mine[0] != least) continue;
      for (int at = 0; at + 1 < kRepackBlocks; ++at) mine[at] = mine[at + 1];
      mine[kRepackBlocks - 1] = kNone;
    }
    block.sync();
    const Merge merge = choose_merge(shared.work.keys, candidates, surplus);
    if (block.thread() < merge.count)
      shared.work.blocks[block.thread()] = &list[index_of_key(shared.work.keys[block.thread()])];
    block.sync();
    return merge;
  }

  /// Ranks the merged tokens by position: each counts those that are older.
  template <class Block>
  KVAST_HD static void put_in_order(const Block& block, Merge merge, Shared& shared) {
    MergeWork& work = shared.work;
    const int slots = merge.count * kBlockTokens;
    for (int at = block.thread(); at < slots; at += block.threads()) {
      const kvast::Block& one = *work.blocks[at / kBlockTokens];
      const int slot = at % kBlockTokens;
      work.positions[at] = (one.live >> slot & 1U) != 0 ? one.position[slot] : kNone;
    }
    int tokens = 0;
    for (int at = 0; at < merge.count; ++at) tokens += live_of_key(work.keys[at]);
    if (block.thread() == 0) work.tokens = tokens;
    block.sync();
    for (int at = block.thread(); at < slots; at += block.threads()) {
      const int position = work.positions[at];
      if (position == kNone) continue;
      int older = 0;
      for (int other = 0; other < slots; ++other) older += work.positions[other] < position ? 1 : 0;
      work.sources[older] = static_cast<std::uint8_t>(at);
    }
    block.sync();
  }

  /// What else a token has, by way of shared memory.
  template <class Block>
  KVAST_HD static void move_sides(const Block& block, const LayerView& layer, Merge merge,
                                  Shared& shared) {
    const MergeWork& work = shared.work;
    const std::size_t bytes = record_bytes(layer.layout.bytes);
    auto* records = reinterpret_cast<std::byte*>(&shared.payload);
    const int chunks = static_cast<int>(bytes / sizeof(Chunk));
    for (int at = block.thread(); at < merge.count * chunks; at += block.threads()) {
      reinterpret_cast<Chunk*>(records)[at] =
          reinterpret_cast<const Chunk*>(work.blocks[at / chunks])[at % chunks];
    }
    block.sync();
    for (int token = block.thread(); token < work.tokens; token += block.threads()) {
      const int from = work.sources[token];
      const auto* record = reinterpret_cast<const kvast::Block*>(
          records + static_cast<std::size_t>(from / kBlockTokens) * bytes);
      move_side(layer.layout, 0, 1, *record, from % kBlockTokens,
                *work.blocks[token / kBlockTokens], token % kBlockTokens);
    }
    block.sync();
  }

  /// The merged blocks leave the list, the first of them come back at its end.
  template <class Block>
  KVAST_HD static void replace(const Block& block, const LayerView& layer, BlockList& list,
                               Merge merge, Shared& shared) {
    const MergeWork& work = shared.work;
    const auto stays = [&](int at) {
      for (int merged = 0; merged < merge.count; ++merged) {
        if (index_of_key(work.keys[merged]) == at) return false;
      }
      return true;
    };
    const int kept = thin_out(block, list, shared.scratch, stays, [](kvast::Block*) {});
    if (block.thread() < merge.count) {
      kvast::Block* one = work.blocks[block.thread()];
      const int tokens = least_of(work.tokens - block.thread() * kBlockTokens, kBlockTokens);
      if (block.thread() >= merge.made) {
        give_record(block, layer, one, true);
      } else {
        one->live = tokens == kBlockTokens ? kAllLive : (1U << tokens) - 1U;
        one->used = kBlockTokens;
        list.data[kept + block.thread()] = one;
      }
    }
    block.sync();
    if (block.thread() == 0) list.count = kept + merge.made;
    block.sync();
  }
};

}  // namespace kvast::gpu
