// SPDX-License-Identifier: Apache-2.0
// A block and the lists of them that make a head: where tokens live between arrival and eviction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>

#include "kvast/core/policy.h"
#include "kvast/core/shape.h"

namespace kvast {

inline constexpr std::uint32_t kAllLive = 0xFFFFFFFFU;

/// The norm of finite numbers may exceed what a float holds, and must not rank as a landmark.
inline constexpr double kMostNorm = 3.0e38;

/// Blocks that `tokens` tokens fill, the last one perhaps in part.
template <class Count>
KVAST_HD constexpr Count blocks_of(Count tokens) {
  return (tokens + kBlockTokens - 1) / kBlockTokens;
}

/// Side-table record of one block: 32 slots of one (layer, head). Payload is written once and may
/// be shared between forks; what changes every step stands here. Policy states, key norms and token
/// kinds follow it in memory, where the policy asks for them (SideLayout).
struct Block {
  std::byte* keys = nullptr;  ///< payload, null under External storage
  std::byte* values = nullptr;
  std::uint32_t live = 0;  ///< bit per slot: holds a token that was not evicted
  std::int32_t used =
      0;  ///< slots written, counted from 0; equals popcount(live) where holes are filled
  std::int32_t position[kBlockTokens] = {};

  KVAST_HD int live_count() const { return count_bits(live); }
};

/// Offsets of what follows a Block in memory.
struct SideLayout {
  std::size_t state_bytes = 0;  ///< per slot
  std::size_t states = 0;
  std::size_t norms = 0;  ///< 0: none
  std::size_t kinds = 0;  ///< 0: none
  std::size_t bytes = 0;  ///< whole record

  friend constexpr bool operator==(const SideLayout&, const SideLayout&) = default;

  /// An empty State takes no room.
  template <class State>
  static SideLayout of(const Needs& needs) {
    SideLayout layout{.state_bytes = std::is_empty_v<State> ? 0 : sizeof(State)};
    layout.states = (sizeof(Block) + 15) / 16 * 16;
    std::size_t end = layout.states + kBlockTokens * layout.state_bytes;
    if (needs.key_norms) {
      layout.norms = (end + 15) / 16 * 16;
      end = layout.norms + kBlockTokens * sizeof(float);
    }
    if (needs.token_kinds) {
      layout.kinds = end;
      end += kBlockTokens;
    }
    layout.bytes = end;
    return layout;
  }

  KVAST_HD std::byte* states_of(Block& block) const {
    return reinterpret_cast<std::byte*>(&block) + states;
  }
  KVAST_HD float* norms_of(Block& block) const {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(&block) + norms);
  }
  KVAST_HD TokenKind* kinds_of(Block& block) const {
    return reinterpret_cast<TokenKind*>(reinterpret_cast<std::byte*>(&block) + kinds);
  }
};

/// The token in a slot, as policies see it; `newest` is the sequence's newest position.
KVAST_HD inline Token token_at(const SideLayout& side, Block& block, int slot, int newest,
                               int layer, int head) {
  Token token{.position = block.position[slot],
              .age = newest - block.position[slot],
              .layer = layer,
              .head = head};
  if (side.norms != 0) token.key_norm = side.norms_of(block)[slot];
  if (side.kinds != 0) token.kind = side.kinds_of(block)[slot];
  return token;
}

template <class Policy>
KVAST_HD typename Policy::State& state_at(const SideLayout& side, Block& block, int slot) {
  return reinterpret_cast<typename Policy::State*>(side.states_of(block))[slot];
}

/// Blocks of one kind of one head; the array of pointers is pool memory as well.
struct BlockList {
  Block** data = nullptr;
  int count = 0;
  int capacity = 0;
  int live = 0;  ///< tokens in all of them; asked every step, so never counted again

  KVAST_HD Block& operator[](int index) const { return *data[index]; }
  /// Slots written, dead ones included: all blocks but the last are full.
  KVAST_HD int slots() const {
    return count == 0 ? 0 : (count - 1) * kBlockTokens + data[count - 1]->used;
  }
};

/// The tokens of one (layer, kv head): sealed blocks first, then the dense ones, which take what
/// arrives.
struct Head {
  BlockList coded;
  BlockList dense;
  /// Which channels sealed keys have, ascending, in the layer's memory; null where they have all,
  /// or none were chosen yet.
  const std::uint16_t* channels = nullptr;
  int capacity_before = 0;  ///< of `dense` when the last append began; a dropped pass restores it

  KVAST_HD int blocks() const { return coded.count + dense.count; }
  /// Coded blocks come first in this numbering; slots are numbered 32 * block + slot.
  KVAST_HD Block& block(int index) const {
    return index < coded.count ? coded[index] : dense[index - coded.count];
  }
  KVAST_HD int live() const { return coded.live + dense.live; }
  /// Slots written, dead ones included.
  KVAST_HD int slots() const {
    return dense.count == 0 ? coded.slots() : coded.count * kBlockTokens + dense.slots();
  }
};

}  // namespace kvast
