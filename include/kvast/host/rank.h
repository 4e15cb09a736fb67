// SPDX-License-Identifier: Apache-2.0
// rank: a policy's rank for every live token of a head.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/core/runs.h"
#include "kvast/host/encode.h"
#include "kvast/host/moments.h"

namespace kvast {

/// Buffers of one head's rank and select.
struct RankWork {
  /// A token that may stay or go; the least goes first, and of equals the older one.
  struct Candidate {
    std::int32_t key;
    std::int32_t position;
    std::int32_t slot;
    bool operator<(const Candidate& other) const {
      return key != other.key ? key < other.key : position < other.position;
    }
  };
  std::vector<float> ranks;  ///< [32 * blocks], of dead slots undefined
  std::vector<Place> order;  ///< live slots in order of position, where somebody needs it
  std::vector<Candidate> candidates;
  std::vector<std::int32_t> least;  ///< [blocks] lowest rank_key of the tokens that may stay or go
  std::vector<int> victims;         ///< slots to evict, ascending
  int target = -1;                  ///< tokens to come down to; negative: whatever the ranks say
  int room = -1;  ///< tokens that may stay besides pinned ones; negative: see target
  // whole-head policies
  std::vector<Token> tokens;
  std::vector<std::byte> states;
  std::vector<float> keys, values, decoded;
  std::vector<float> in_order;  ///< ranks in order of position
};

/// Where and when tokens are ranked.
struct RankContext {
  int newest = 0;  ///< the sequence's newest position
  int layer = 0;
  int head = 0;
  const QueryMoments* moments = nullptr;  ///< where the policy needs them, with the rotation
  const Rope* rope = nullptr;
  const RopeLevels* levels = nullptr;  ///< unrotated positions: policies see keys rotated
  const void* choice = nullptr;        ///< Policy::Choice of the head, where the policy chooses
};

/// The token in a slot, as policies see it.
inline Token token_at(const SideLayout& side, Block& block, int slot, const RankContext& context) {
  return token_at(side, block, slot, context.newest, context.layer, context.head);
}

/// Live slots of a head in order of position.
inline void order_tokens(const Head& head, std::vector<Place>& order) {
  order.clear();
  const auto each = [&head](auto&& body) {
    for (int index = 0; index < head.blocks(); ++index) {
      const Block& block = head.block(index);
      for (std::uint32_t live = block.live; live != 0; live &= live - 1U) {
        const int slot = std::countr_zero(live);
        body(Place{block.position[slot], index * kBlockTokens + slot});
      }
    }
  };
  int first = std::numeric_limits<int>::max();
  int last = -1;
  each([&](Place place) {
    first = std::min(first, place.position);
    last = std::max(last, place.position);
  });
  if (last < 0) return;
  // No two tokens have one position, so where they lie close enough each has a place of its own:
  // several times as fast as comparing, and tier 3 orders its tokens in every step.
  constexpr std::size_t kPlacesPerToken = 16;
  constexpr int kNobody = -1;
  const std::size_t places =
      kPlacesPerToken * static_cast<std::size_t>(head.blocks() * kBlockTokens);
  const std::size_t width = static_cast<std::size_t>(last) - static_cast<std::size_t>(first) + 1;
  // at once, as the width grows in every step
  if (order.capacity() < places) order.reserve(std::bit_ceil(places));
  if (width <= places) {
    order.assign(width, {0, kNobody});
    each([&](Place place) { order[static_cast<std::size_t>(place.position - first)] = place; });
    std::erase_if(order, [](Place place) { return place.slot == kNobody; });
  } else {
    each([&](Place place) { order.push_back(place); });
    std::sort(order.begin(), order.end(), [](Place a, Place b) { return a.position < b.position; });
  }
}

/// Keys, rotated, and values of the tokens in `work.order`, decoded.
inline void decode_vectors(const LayerPlan& plan, const Head& head, const RankContext& context,
                           RankWork& work) {
  const auto key_dim = static_cast<std::size_t>(plan.shape.head_dim);
  const auto value_dim = static_cast<std::size_t>(plan.shape.values());
  work.keys.resize(work.order.size() * key_dim);
  work.values.resize(work.order.size() * value_dim);
  float key[512];
  float value[512];
  detail::BlockReader reader(plan, head, work.decoded);
  for (std::size_t at = 0; at < work.order.size(); ++at) {
    const int index = work.order[at].slot / kBlockTokens;
    const int slot = work.order[at].slot % kBlockTokens;
    reader.read(head.block(index), index < head.coded.count, true);
    reader.vectors(context.head, slot, key, value);
    if (plan.reconstructs) context.levels->rotate(key, work.order[at].position);

    std::copy_n(key, key_dim, work.keys.data() + at * key_dim);
    std::copy_n(value, value_dim, work.values.data() + at * value_dim);
  }
}

/// Tier 3: the policy ranks the whole head at once.
template <class Policy>
void rank_whole_head(const Policy& policy, const LayerPlan& plan, const Head& head,
                     const RankContext& context, RankWork& work) {
  using State = typename Policy::State;
  order_tokens(head, work.order);
  const std::size_t count = work.order.size();
  work.tokens.resize(count);
  work.states.resize(count * sizeof(State));
  for (std::size_t at = 0; at < count; ++at) {
    Block& block = head.block(work.order[at].slot / kBlockTokens);
    const int slot = work.order[at].slot % kBlockTokens;
    work.tokens[at] = token_at(plan.side, block, slot, context);
    std::memcpy(work.states.data() + at * sizeof(State), &state_at<Policy>(plan.side, block, slot),
                plan.side.state_bytes);
  }
  if (Policy::needs.vectors) decode_vectors(plan, head, context, work);
  work.in_order.assign(count, 0.0F);
  HeadView<State> view{.tokens = work.tokens,
                       .states = std::span(reinterpret_cast<State*>(work.states.data()), count),
                       .budget = work.target,
                       .keys = work.keys,
                       .values = work.values,
                       .head_dim = plan.shape.head_dim,
                       .value_dim = plan.shape.values()};
  if constexpr (Policy::needs.query_moments) {
    const auto dim = static_cast<std::size_t>(plan.shape.head_dim);
    const auto group = static_cast<std::size_t>(plan.shape.group());
    const auto first = static_cast<std::size_t>(context.head) * group;
    view.query_means = std::span(context.moments->means).subspan(first * dim, group * dim);
    view.query_covariances =
        std::span(context.moments->covariances).subspan(first * dim * dim, group * dim * dim);
    view.rope = context.rope;
  }
  policy.rank_head(view, std::span<float>(work.in_order));
  for (std::size_t at = 0; at < count; ++at) {
    const int place = work.order[at].slot;
    work.ranks[static_cast<std::size_t>(place)] = work.in_order[at];
    std::memcpy(
        &state_at<Policy>(plan.side, head.block(place / kBlockTokens), place % kBlockTokens),
        work.states.data() + at * sizeof(State), plan.side.state_bytes);
  }
}

/// Fills `work.ranks`. `work.target` says how many tokens are to stay.
template <class Policy>
void rank_tokens(const Policy& policy, const LayerPlan& plan, const Head& head,
                 const RankContext& context, RankWork& work) {
  const SideLayout& side = plan.side;
  work.ranks.resize(static_cast<std::size_t>(head.blocks() * kBlockTokens));
  if constexpr (detail::RanksByHead<Policy>) {
    order_tokens(head, work.order);  // where tokens lie must not matter
    const auto summarized = [&](int at) {
      const int place = work.order[static_cast<std::size_t>(at)].slot;
      Block& block = head.block(place / kBlockTokens);
      const int slot = place % kBlockTokens;
      return policy.summarize(token_at(side, block, slot, context),
                              state_at<Policy>(side, block, slot));
    };
    const Runs runs{static_cast<int>(work.order.size())};
    typename Policy::Head summary{};
    for (int run = 0; run < runs.count(); ++run) {
      typename Policy::Head part = summarized(runs.begin(run));
      for (int at = runs.begin(run) + 1; at < runs.end(run); ++at)
        part = policy.merge(part, summarized(at));
      summary = run == 0 ? part : policy.merge(summary, part);
    }
    for (const Place& place : work.order) {
      Block& block = head.block(place.slot / kBlockTokens);
      const int slot = place.slot % kBlockTokens;
      work.ranks[static_cast<std::size_t>(place.slot)] = policy.rank(
          token_at(side, block, slot, context), state_at<Policy>(side, block, slot), summary);
    }
  } else if constexpr (detail::RanksTokens<Policy> || detail::Chooses<Policy>) {
    const auto rank_one = [&](const Token& token, const typename Policy::State& state) {
      if constexpr (detail::Chooses<Policy>) {
        return policy.rank(token, state,
                           *static_cast<const typename Policy::Choice*>(context.choice));
      } else {
        return policy.rank(token, state);
      }
    };
    if constexpr (detail::Chooses<Policy>)
      work.room = policy.room(*static_cast<const typename Policy::Choice*>(context.choice),
                              context.newest + 1);
    for (int index = 0; index < head.blocks(); ++index) {
      Block& block = head.block(index);
      float* ranks = work.ranks.data() + index * kBlockTokens;
      const auto rank = [&](int slot) {
        ranks[slot] =
            rank_one(token_at(side, block, slot, context), state_at<Policy>(side, block, slot));
      };
      if (block.live == kAllLive) {
        for (int slot = 0; slot < kBlockTokens; ++slot) rank(slot);
      } else {
        for (std::uint32_t live = block.live; live != 0; live &= live - 1U) {
          rank(std::countr_zero(live));
        }
      }
    }
  } else {
    rank_whole_head(policy, plan, head, context, work);
  }
}

}  // namespace kvast
