// SPDX-License-Identifier: Apache-2.0
// repack: coded blocks of which many slots are dead become fewer, fuller ones.
#pragma once

#include <algorithm>
#include <vector>

#include "kvast/core/repack.h"
#include "kvast/host/encode.h"

namespace kvast {

namespace detail {

/// The list's sparsest blocks, by merge_key: what a merge may take.
inline void find_sparsest(const BlockList& list, std::vector<int>& keys) {
  keys.clear();
  for (int index = 0; index < list.count; ++index) {
    if (list[index].live != kAllLive) keys.push_back(merge_key(list[index].live_count(), index));
  }
  const std::size_t most = std::min<std::size_t>(keys.size(), kRepackBlocks);
  std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(most), keys.end());
  keys.resize(most);
}

/// What is merged, out of its blocks: these are freed before new ones are taken.
class Merged {
 public:
  Merged(const LayerPlan& plan, const Head& head, RepackScratch& scratch)
      : plan_(plan), head_(head), scratch_(scratch), side_bytes_((plan.side.bytes + 15) / 16 * 16) {
    scratch_.keys.clear();
    scratch_.values.clear();
    scratch_.sides.clear();
    scratch_.places.clear();
  }
  /// Copies a block's side record and values, and decodes the keys of its live tokens.
  void add(Block& block, std::vector<float>& decoded) {
    const int source = static_cast<int>(scratch_.sides.size() / side_bytes_);
    const auto* side = reinterpret_cast<const std::byte*>(&block);
    scratch_.sides.insert(scratch_.sides.end(), side, side + plan_.side.bytes);
    scratch_.sides.resize(static_cast<std::size_t>(source + 1) * side_bytes_);
    scratch_.values.insert(scratch_.values.end(), block.values,
                           block.values + plan_.value_bytes(true));
    BlockReader reader(plan_, head_, decoded);
    reader.read(block, true, false);
    const auto dim = static_cast<std::size_t>(plan_.key_width(true));
    for (std::uint32_t live = block.live; live != 0; live &= live - 1U) {
      const int slot = std::countr_zero(live);
      scratch_.places.push_back({{block.position[slot], source * kBlockTokens + slot},
                                 static_cast<int>(scratch_.keys.size() / dim)});
      scratch_.keys.resize(scratch_.keys.size() + dim);
      reader.key(slot, scratch_.keys.data() + scratch_.keys.size() - dim, 1);
    }
  }
  /// The oldest first: what has survived long survives together.
  void sort() {
    std::sort(scratch_.places.begin(), scratch_.places.end(),
              [](const auto& a, const auto& b) { return a.place.position < b.place.position; });
  }
  int tokens() const { return static_cast<int>(scratch_.places.size()); }
  /// Tokens [first, first + count) of the order into an empty block. Value rows move as they are.
  void write(int first, int count, Staging& staging, Block& to) {
    const StoragePlan& formats = plan_.formats;
    const int dim = plan_.key_width(true);
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      // empty slots repeat a key: they must not widen the range
      const auto& token = scratch_.places[static_cast<std::size_t>(first + slot % count)];
      const float* key = scratch_.keys.data() + static_cast<std::ptrdiff_t>(token.key) * dim;
      for (int at = 0; at < dim; ++at) staging.keys[at * kBlockTokens + slot] = key[at];
      if (slot >= count) continue;
      const int source = token.place.slot / kBlockTokens;
      const int from_slot = token.place.slot % kBlockTokens;
      const std::byte* tile =
          scratch_.values.data() + static_cast<std::size_t>(source) * plan_.value_bytes(true);
      for_value_tiles(*formats.coded_values, to.values, plan_.value_width(),
                      [&](std::byte* into, int, int channels) {
                        formats.coded_values->copy_row(tile, from_slot, into, slot, kBlockTokens,
                                                       channels);
                        tile += formats.coded_values->tile_bytes(kBlockTokens, kBlockTokens);
                      });
      std::byte* side = scratch_.sides.data() + static_cast<std::size_t>(source) * side_bytes_;
      move_side(plan_, *reinterpret_cast<Block*>(side), from_slot, to, slot);
    }
    formats.coded_keys->encode(staging.keys, kBlockTokens, dim, kBlockTokens, to.keys);
    to.live = count == kBlockTokens ? kAllLive : (1U << count) - 1U;
    to.used = kBlockTokens;
  }

 private:
  const LayerPlan& plan_;
  const Head& head_;
  RepackScratch& scratch_;
  std::size_t side_bytes_;
};

}  // namespace detail

/// Merges sparse coded blocks until at most 7/6 of the live slots are left: value rows move as they
/// are, keys are decoded and encoded again. The tokens of a merge are put together by age: whose
/// neighbours live long are seldom merged again, so that errors do not pile up on the oldest. Takes
/// no more blocks than it gives back, but for those that a fork keeps.
inline void repack_tokens(const LayerPlan& plan, Head& head, Account& account,
                          EncodeScratch& scratch, EncodeCounts& counts) {
  if (!plan.is_coded() || plan.keeps_order || !wants_repack(head)) return;
  BlockList& list = head.coded;
  const int target = repack_target(list);
  std::vector<int>& sparsest = scratch.slots;
  while (list.count > target) {
    detail::find_sparsest(list, sparsest);
    const Merge merge =
        choose_merge(sparsest.data(), static_cast<int>(sparsest.size()), list.count - target);
    if (merge.count == 0) return;
    detail::Merged merged(plan, head, scratch.repack);
    for (int at = 0; at < merge.count; ++at) {
      Block& from = list[index_of_key(sparsest[static_cast<std::size_t>(at)])];
      merged.add(from, scratch.decoded);
      from.live = 0;
    }
    drop_empty_blocks(plan, list, true, account);
    merged.sort();
    for (int first = 0; first < merged.tokens(); first += kBlockTokens) {
      merged.write(first, std::min(kBlockTokens, merged.tokens() - first), scratch.staging,
                   push_block(plan, list, true, account));
    }
    counts.repacked += merged.tokens();
  }
}

}  // namespace kvast
