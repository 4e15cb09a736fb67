// SPDX-License-Identifier: Apache-2.0
// encode: the oldest waiting tokens are sealed into coded blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kvast/host/evict.h"

namespace kvast {

/// What sealing and repacking did, in tokens.
struct EncodeCounts {
  std::int64_t sealed = 0;    ///< encoded for the first time
  std::int64_t repacked = 0;  ///< keys decoded and encoded again
};

/// A token's place, for sorting by position.
struct Place {
  int position;
  int slot;  ///< 32 * block + slot
};

namespace detail {

/// Keys [D, 32] and values [32, Dv] of up to 32 tokens as floats: what a coded block is made from.
struct Staging {
  alignas(64) float keys[512 * kBlockTokens];
  alignas(64) float values[kBlockTokens * 512];
};

inline void encode_block(const LayerPlan& plan, const Head& head, Staging& staging, Block& block) {
  for (int at = 0; at < plan.sealed_channels; ++at)
    std::copy_n(staging.keys + head.channels[at] * kBlockTokens, kBlockTokens,
                staging.keys + at * kBlockTokens);
  const StoragePlan& formats = plan.formats;
  formats.coded_keys->encode(staging.keys, kBlockTokens, plan.key_width(true), kBlockTokens,
                             block.keys);
  for_value_tiles(*formats.coded_values, block.values, plan.value_width(),
                  [&](std::byte* tile, int first, int channels) {
                    formats.coded_values->encode(staging.values + first, 512, kBlockTokens,
                                                 channels, tile);
                  });
}

inline void decode_keys(const Codec& codec, const Block& block, int head_dim, float* keys) {
  codec.decode(block.keys, head_dim, kBlockTokens, keys, kBlockTokens);
}
inline void decode_values(const Codec& codec, const Block& block, int value_dim, float* values,
                          std::ptrdiff_t stride) {
  for_value_tiles(codec, static_cast<const std::byte*>(block.values), value_dim,
                  [&](const std::byte* tile, int first, int channels) {
                    codec.decode(tile, kBlockTokens, channels, values + first, stride);
                  });
}

/// Decodes one block after another and remembers the last, since neighbours in order are mostly
/// neighbours in memory.
class BlockReader {
 public:
  BlockReader(const LayerPlan& plan, const Head& head, std::vector<float>& scratch)
      : plan_(plan), head_(head), scratch_(scratch) {
    const int columns = std::max(plan.key_width(), plan.value_width());
    if (scratch_.size() < static_cast<std::size_t>(2 * columns * kBlockTokens))
      scratch_.resize(static_cast<std::size_t>(2 * columns * kBlockTokens));
  }
  void read(const Block& block, bool coded, bool values) {
    if (&block == last_) return;
    last_ = &block;
    width_ = plan_.key_width(coded);
    decode_keys(plan_.key_codec(coded), block, width_, scratch_.data());
    if (values)
      decode_values(plan_.value_codec(coded), block, plan_.value_width(), value_data(),
                    plan_.value_width());
  }
  /// As it is stored: coordinates, or the channels that are left.
  void key(int slot, float* to, std::ptrdiff_t stride) const {
    for (int dim = 0; dim < width_; ++dim)
      to[dim * stride] = scratch_[static_cast<std::size_t>(dim * kBlockTokens + slot)];
  }
  const float* value(int slot) { return value_data() + slot * plan_.value_width(); }
  /// Both out of their bases: features as they arrived, or the nearest that the bases hold. A
  /// channel that was dropped is 0.
  void vectors(int head, int slot, float* to_key, float* to_value) {
    key(slot, to_key, 1);
    if (width_ < plan_.key_width()) spread(to_key);
    std::copy_n(value(slot), plan_.value_width(), to_value);
    plan_.key_basis.undo(head, to_key);
    plan_.value_basis.undo(head, to_value);
  }

 private:
  void spread(float* key) const {
    int from = width_;
    for (int channel = plan_.key_width(); channel-- > 0;) {
      const bool has = from > 0 && head_.channels[from - 1] == channel;
      key[channel] = has ? key[--from] : 0.0F;
    }
  }
  float* value_data() { return scratch_.data() + plan_.key_width() * kBlockTokens; }

  const LayerPlan& plan_;
  const Head& head_;
  std::vector<float>& scratch_;
  int width_ = 0;  ///< of the keys last read
  const Block* last_ = nullptr;
};

}  // namespace detail

/// What a repack takes out of the blocks that it frees.
struct RepackScratch {
  struct Token {
    Place place;  ///< position, and slot within the blocks that were taken
    int key;      ///< index in `keys`
  };
  std::vector<float> keys;        ///< [tokens, key_width]
  std::vector<std::byte> values;  ///< payloads of whole blocks
  std::vector<std::byte> sides;   ///< their side records
  std::vector<Token> places;
};

/// Buffers of one task; they grow once and are reused.
struct EncodeScratch {
  detail::Staging staging;
  std::vector<float> decoded;
  std::vector<Place> places;
  std::vector<int> slots;
  RepackScratch repack;
};

/// How many coded blocks sealing would make from `waiting` dense tokens.
inline int blocks_to_seal(const LayerPlan& plan, int waiting) {
  return plan.is_coded() ? std::max(0, waiting - plan.formats.residual) / kBlockTokens : 0;
}

namespace detail {

/// Compacted positions: a key is stored rotated by its slot, so a full block is sealed as it
/// stands, holes included.
inline void seal_in_place(const LayerPlan& plan, Head& head, Account& account,
                          EncodeScratch& scratch, EncodeCounts& counts) {
  int newer = head.dense.live;
  int sealed = 0;
  for (; sealed < head.dense.count; ++sealed) {
    Block& from = head.dense[sealed];
    newer -= from.live_count();
    if (from.used < kBlockTokens || newer < plan.formats.residual) break;
    Staging& staging = scratch.staging;
    decode_keys(*plan.formats.dense_keys, from, plan.key_width(), staging.keys);
    decode_values(*plan.formats.dense_values, from, plan.value_width(), staging.values, 512);
    const int any = std::countr_zero(from.live);
    for (int slot = 0; slot < kBlockTokens;
         ++slot) {  // holes repeat a live key: they must not widen the range
      if ((from.live >> slot & 1U) != 0) continue;
      for (int dim = 0; dim < plan.key_width(); ++dim)
        staging.keys[dim * kBlockTokens + slot] = staging.keys[dim * kBlockTokens + any];
    }
    Block& to = push_block(plan, head.coded, true, account);
    encode_block(plan, head, staging, to);
    for (int slot = 0; slot < kBlockTokens; ++slot) move_side(plan, from, slot, to, slot);
    to.live = from.live;
    to.used = kBlockTokens;
    head.coded.live += to.live_count();
    head.dense.live -= to.live_count();
    counts.sealed += to.live_count();
    from.live = 0;
  }
  if (sealed > 0) drop_empty_blocks(plan, head.dense, false, account);
}

}  // namespace detail

/// Seals the oldest dense tokens, in order of position, until fewer than residual + 32 wait. Each
/// token is encoded once. Blocks were reserved.
inline void seal_tokens(const LayerPlan& plan, Head& head, Account& account, EncodeScratch& scratch,
                        EncodeCounts& counts) {
  if (!plan.is_coded() || head.dense.count == 0 || !plan.can_seal(head)) return;
  if (plan.keeps_order) return detail::seal_in_place(plan, head, account, scratch, counts);
  const int slots = head.dense.slots();
  if (blocks_to_seal(plan, slots) == 0) return;
  std::vector<Place>& places = scratch.places;
  places.clear();
  for (int slot = 0; slot < slots; ++slot) {
    const int position = head.dense[slot / kBlockTokens].position[slot % kBlockTokens];
    if (position >= plan.formats.first_coded) places.push_back({position, slot});
  }
  const int blocks = blocks_to_seal(plan, static_cast<int>(places.size()));
  if (blocks == 0) return;
  std::sort(places.begin(), places.end(), [](Place a, Place b) { return a.position < b.position; });
  detail::BlockReader reader(plan, head, scratch.decoded);
  scratch.slots.clear();
  for (int made = 0; made < blocks; ++made) {
    Block& to = push_block(plan, head.coded, true, account);
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      const int from_slot = places[static_cast<std::size_t>(made * kBlockTokens + slot)].slot;
      Block& from = head.dense[from_slot / kBlockTokens];
      reader.read(from, false, true);
      reader.key(from_slot % kBlockTokens, scratch.staging.keys + slot, kBlockTokens);
      std::copy_n(reader.value(from_slot % kBlockTokens), plan.value_width(),
                  scratch.staging.values + slot * 512);
      move_side(plan, from, from_slot % kBlockTokens, to, slot);
      scratch.slots.push_back(from_slot);
    }
    detail::encode_block(plan, head, scratch.staging, to);
    to.live = kAllLive;
    to.used = kBlockTokens;
    head.coded.live += kBlockTokens;
    counts.sealed += kBlockTokens;
  }
  std::sort(scratch.slots.begin(), scratch.slots.end());
  fill_holes(plan, head, scratch.slots, account, nullptr);
}

}  // namespace kvast
