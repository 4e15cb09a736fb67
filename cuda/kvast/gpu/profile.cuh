// SPDX-License-Identifier: Apache-2.0
// profile: at a prompt's end each head's attention is looked at a second time, and a policy chooses
// what the head keeps from then on. As host/profile.h does, with sums in another order.
#pragma once

#include <cstring>

#include "kvast/gpu/choices.cuh"
#include "kvast/gpu/showing.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// merge(left, right) of all lanes' values, in the order of lanes; every lane gets it.
template <class Warp, class Value, class Merge>
KVAST_HD Value warp_merge(const Warp& warp, Value value, const Merge& merge) {
  static_assert(std::is_trivially_copyable_v<Value>, "lanes exchange values as bytes");
  for (int mask = 1; mask < kWarp; mask *= 2) {
    std::uint32_t words[(sizeof(Value) + 3) / 4] = {};
    std::memcpy(words, &value, sizeof value);
    for (std::uint32_t& word : words) word = warp.shuffle_xor(word, mask);
    Value other;
    std::memcpy(&other, words, sizeof other);
    value = (warp.lane() & mask) == 0 ? merge(value, other) : merge(other, value);
  }
  return value;
}

/// Profiles of parts of heads.
template <class Policy>
struct PartialProfiles {
  typename Policy::Profile* all = nullptr;  ///< [tables, blocks]
  int blocks = 0;                           ///< room per table

  KVAST_HD typename Policy::Profile& at(int table, int index) const {
    return all[std::int64_t{table} * blocks + index];
  }
};

/// A place for weights (attend_weights.cuh): the profile of each block of heads that chose nothing
/// yet.
template <class Policy>
struct ProfileBlocks {
  using Gathered = typename Policy::Profile;
  LayerView layer{};
  Policy policy{};
  PartialProfiles<Policy> partial{};

  KVAST_HD bool wants(int table) const { return !layer.turns[table].chose; }
  KVAST_HD void operator()(Gathered& profile, kvast::Block& block, int table, int, int, int slot,
                           bool sees, const Attention& seen) const {
    if (!sees) return;
    policy.profile(profile, layer.token(block, table, slot, seen.step),
                   state_at<Policy>(layer.layout, block, slot), seen);
  }
  template <class Warp>
  KVAST_HD void finish(const Warp& warp, const Gathered& profile, int table, int index) const {
    const Gathered whole = merged(warp, profile);
    if (warp.lane() == 0) partial.at(table, index) = whole;
  }
  template <class Warp>
  KVAST_HD Gathered merged(const Warp& warp, const Gathered& profile) const {
    return warp_merge(warp, profile, [this](const Gathered& left, const Gathered& right) {
      return policy.merge(left, right);
    });
  }
};

/// Each head that has tokens of the pass and chose nothing yet chooses, for good.
template <class Policy>
struct Choose {
  static constexpr int kThreads = kWarp;
  ProfileBlocks<Policy> profiles{};
  HeadChoices<Policy> choices{};

  /// Grid: sequences * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = profiles.layer;
    const Policy& policy = profiles.policy;
    const int table = block.index();
    const int sequence = table / layer.head_count;
    if (layer.rows[sequence].count == 0 || !profiles.wants(table)) return;
    if (layer.head(table).blocks() > profiles.partial.blocks) return;  // told by what shows weights
    const auto warp = block.warp();
    const int each = (layer.head(table).blocks() + kWarp - 1) / kWarp;
    const int end = least_of((warp.lane() + 1) * each, layer.head(table).blocks());
    typename Policy::Profile mine{};
    for (int index = warp.lane() * each; index < end; ++index)
      mine = policy.merge(mine, profiles.partial.at(table, index));
    const auto whole = profiles.merged(warp, mine);
    if (warp.lane() != 0) return;
    choices.at(layer, table) = policy.choose(whole, layer.newest(sequence) + 1);
    layer.turns[table].chose = true;
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
