// SPDX-License-Identifier: Apache-2.0
// rank: whether a head's policy acts at the end of a pass, and its rank for every live token.
#pragma once

#include "kvast/core/action.h"
#include "kvast/core/check_policy.h"
#include "kvast/gpu/choices.cuh"
#include "kvast/gpu/evict.cuh"
#include "kvast/gpu/summarize.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// Whether a policy's ranks are written down; those of others that have no budget only drop tokens.
template <class Policy>
inline constexpr bool kWritesRanks =
    kvast::detail::HasBudget<Policy> || kvast::detail::Chooses<Policy> ||
    kvast::detail::RanksByHead<Policy>;

/// What a policy's kernels are asked about: which heads of which cache, at the end of which pass.
template <class Heads = AllHeads>
struct Asked {
  Heads heads{};   ///< those that the policy decides for
  When when{};     ///< the policy's: it may be a static member, which kernels cannot read
  int layers = 1;  ///< of the cache
  bool ends_prompt = false;
  bool some_layers = false;  ///< the policy decides for those of `own` alone
  LayerSet own{};

  template <class Policy>
  KVAST_HD Action action(const Policy& policy, const LayerView& view, int sequence,
                         int acted) const {
    const int seen = view.newest(sequence) + 1;
    const Layer here{view.layer, layers, seen, some_layers ? &own : nullptr};
    Budget budget = kNoBudget;
    if constexpr (requires { policy.budget(here); }) budget = policy.budget(here);
    return action_of(when, budget, ends_prompt, seen - acted);
  }
};

/// Fills the turns of heads and, of those that act, the ranks; heads of other policies have no
/// turn. Heads that share a set or a budget act together.
template <class Policy, class Heads = AllHeads>
struct Rank {
  static constexpr int kThreads = Summaries<Policy>::kThreads;
  static constexpr std::size_t kSharedBytes = Summaries<Policy>::kSharedBytes;
  static constexpr bool kShares = kvast::detail::allocates<Policy>();
  static constexpr bool kTogether = kShares || kvast::detail::scope_of<Policy>() != Scope::head;
  detail::Place place{};
  Policy policy{};
  Asked<Heads> asked{};
  HeadChoices<Policy> choices{};
  TokenOrders orders{};  ///< where the policy has a Head: of one layer

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    const int table = place.table(block);
    if (table >= layer.tables()) return;
    const int sequence = table / layer.head_count;
    const int newest = layer.newest(sequence);
    Turn& turn = layer.turns[table];
    const Turn before = turn;
    block.sync();  // all have read it
    const Action action = asked.action(policy, layer, sequence, before.acted);
    const bool acts = action.acts && layer.rows[sequence].count > 0 &&
                      asked.heads.contains(layer.layer, table % layer.head_count) &&
                      (action.always || exceeds(layer, table, action.budget)) &&
                      orders.hold(block, layer, table);
    if (block.thread() == 0) {
      turn = {.acts = acts, .target = action.target, .chose = before.chose};
      turn.acted = acts && action.always ? newest + 1 : before.acted;
    }
    if (!acts) return;
    if constexpr (kvast::detail::Chooses<Policy>) {
      const typename Policy::Choice choice =
          before.chose ? choices.at(layer, table) : typename Policy::Choice{};
      if (block.thread() == 0) turn.room = policy.room(choice, newest + 1);
      fill(block, layer, table, [&](const Token& token, const typename Policy::State& state) {
        return policy.rank(token, state, choice);
      });
    } else if constexpr (kvast::detail::RanksByHead<Policy>) {
      const typename Policy::Head head =
          Summaries<Policy>{layer, policy, orders}.of(block, table, newest);
      fill(block, layer, table, [&](const Token& token, const typename Policy::State& state) {
        return policy.rank(token, state, head);
      });
    } else {
      fill(block, layer, table, [&](const Token& token, const typename Policy::State& state) {
        return policy.rank(token, state);
      });
    }
  }

 private:
  template <class Block, class RankOne>
  KVAST_HD static void fill(const Block& block, const LayerView& layer, int table,
                            const RankOne& rank) {
    fill_ranks(block, layer, table, [&](const Token& token, kvast::Block& one, int slot) {
      return rank(token, state_at<Policy>(layer.layout, one, slot));
    });
  }
  KVAST_HD static bool exceeds(const LayerView& layer, int table, int budget) {
    if constexpr (!kTogether) return layer.head(table).live() > budget;
    const int first = table - table % layer.head_count;
    std::int64_t total = 0;
    bool any = false;
    for (int head = 0; head < layer.head_count; ++head) {
      const int live = layer.head(first + head).live();
      total += live;
      any = any || live > budget;
    }
    return kShares ? total > std::int64_t{budget} * layer.head_count : any;
  }
};

/// Clears the live bit of every token that the policy drops. Of policies that decide by rank alone.
template <class Policy, class Heads = AllHeads>
struct Drop {
  static constexpr int kThreads = 128;
  detail::Place place{};
  Policy policy{};
  Asked<Heads> asked{};

  /// Grid: layers * most_tables.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const LayerView& layer = place.layer(block);
    const int table = place.table(block);
    if (table >= layer.tables()) return;
    const int sequence = table / layer.head_count;
    if (layer.rows[sequence].count == 0) return;  // it has no part in the pass
    if (!asked.heads.contains(layer.layer, table % layer.head_count)) return;
    const int newest = layer.newest(sequence);
    Turn& turn = layer.turns[table];
    const bool acts = asked.action(policy, layer, sequence, turn.acted).acts;
    block.sync();  // all have read it
    if (!acts) return;
    if (block.thread() == 0) turn.acted = newest + 1;
    Head& head = layer.head(table);
    const auto warp = block.warp();
    const int slot = warp.lane();
    for (int index = block.warp_index(); index < head.blocks(); index += block.warps()) {
      kvast::Block& one = head.block(index);
      const bool live = (one.live >> slot & 1U) != 0;
      const bool drops =
          live && rank_key(policy.rank(layer.token(one, table, slot, newest),
                                       state_at<Policy>(layer.layout, one, slot))) == kDropKey;
      const std::uint32_t dropped = warp.ballot(drops);
      if (slot != 0 || dropped == 0) continue;
      one.live &= ~dropped;
      block.fetch_add(index < head.coded.count ? &head.coded.live : &head.dense.live,
                      -count_bits(dropped));
    }
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
