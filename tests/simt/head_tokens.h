// SPDX-License-Identifier: Apache-2.0
// What a cache on the device knows of a head's tokens besides their keys and values.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kvast/gpu/kv_cache.cuh"
#include "tests/simt/backend.h"

namespace kvast::test {

/// Whether a token's rank depends on nothing but the token and its state.
template <class Policy>
inline constexpr bool kRanksAlone = detail::RanksTokens<Policy> && !detail::Composite<Policy>;

/// One live token.
struct TokenSeen {
  static constexpr int kMostState = 256;
  Token token{};
  float rank = 0.0F;     ///< what the policy says in a kernel
  float written = 0.0F;  ///< what stands in the block
  bool acts = false;     ///< its head did, when it was ranked last
  std::byte state[kMostState] = {};
};

/// Writes down every slot of a head; token.position is -1 where there is none.
template <class Policy>
struct ReadTokens {
  static constexpr int kThreads = gpu::kWarp;
  gpu::LayerView layer{};
  Policy policy{};
  int table = 0;
  TokenSeen* to = nullptr;  ///< [blocks * 32]

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const Head& head = layer.head(table);
    const int slot = block.thread();
    for (int index = 0; index < head.blocks(); ++index) {
      kvast::Block& one = head.block(index);
      TokenSeen& seen = to[index * kBlockTokens + slot];
      seen.token.position = -1;
      if ((one.live >> slot & 1U) == 0) continue;
      const int newest = layer.lengths[table / layer.head_count] - 1;  // the pass is over
      seen.token = layer.token(one, table, slot, newest);
      seen.acts = layer.turns[table].acts;
      if (layer.ranks_at != 0) seen.written = layer.ranks_of(one)[slot];
      const auto bytes = static_cast<int>(layer.layout.state_bytes);
      const std::byte* state = layer.layout.states_of(one) + slot * bytes;
      for (int at = 0; at < bytes; ++at) seen.state[at] = state[at];
      if constexpr (kRanksAlone<Policy>)
        seen.rank = policy.rank(seen.token, state_at<Policy>(layer.layout, one, slot));
    }
  }
};

/// A head's live tokens in order of position.
template <class Policy, class Cache>
std::vector<TokenSeen> tokens_of(Cache& cache, const Policy& policy, int sequence, int layer,
                                 int head) {
  const gpu::LayerView& view = cache.view(layer);
  const auto slots = static_cast<std::size_t>(cache.slots(sequence, layer, head)->size());
  DeviceVector<TokenSeen> seen((slots + kBlockTokens - 1) / kBlockTokens * kBlockTokens);
  if (!seen.empty()) {
    EXPECT_TRUE(TestDevice::launch(
        ReadTokens<Policy>{view, policy, sequence * view.head_count + head, seen.data()}, {1, 0},
        stream()));
    wait();
  }
  std::vector<TokenSeen> tokens(seen.begin(), seen.end());
  std::erase_if(tokens, [](const TokenSeen& one) { return one.token.position < 0; });
  std::sort(tokens.begin(), tokens.end(), [](const TokenSeen& left, const TokenSeen& right) {
    return left.token.position < right.token.position;
  });
  return tokens;
}

/// Whether two states of a policy are equal, but for bytes between members that belong to none; of
/// Keyformer, nearly.
template <class Policy>
bool same_state(const Policy& policy, int layer, const std::byte* left, const std::byte* right) {
  typename Policy::State one, two;
  const auto same_part = [&](const auto& part, const auto& mine, const auto& its) {
    return same_state(part, layer, reinterpret_cast<const std::byte*>(&mine),
                      reinterpret_cast<const std::byte*>(&its));
  };
  if constexpr (detail::splits<Policy, Split::layers>()) {
    return policy.layers.contains(layer) ? same_state(policy.listed, layer, left, right)
                                         : same_state(policy.rest, layer, left, right);
  }
  std::memcpy(&one, left, sizeof one);
  std::memcpy(&two, right, sizeof two);
  if constexpr (detail::splits<Policy, Split::phases>()) {
    return same_part(policy.prefill, one.prefill, two.prefill) &&
           same_part(policy.decode, one.decode, two.decode);
  } else if constexpr (detail::splits<Policy, Split::heads>()) {
    return same_part(policy.listed, one.listed, two.listed) &&
           same_part(policy.rest, one.rest, two.rest);
  } else if constexpr (detail::Chooses<Policy>) {
    return bits_as<std::uint32_t>(one.mass) == bits_as<std::uint32_t>(two.mass) &&
           one.marked == two.marked;
  } else if constexpr (detail::Weighs<Policy>) {  // rows are summed in another order
    const float most = one.mass > two.mass ? one.mass : two.mass;
    return std::abs(one.mass - two.mass) <= 1e-5F * most;
  } else {
    return std::is_empty_v<typename Policy::State> || std::memcmp(&one, &two, sizeof one) == 0;
  }
}

}  // namespace kvast::test
