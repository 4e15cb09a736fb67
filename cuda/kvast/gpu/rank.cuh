// SPDX-License-Identifier: Apache-2.0
// rank: whether a head's policy acts at the end of a pass, and its rank for every live token.
#pragma once

#include "kvast/core/action.h"
#include "kvast/core/check_policy.h"
#include "kvast/gpu/choices.cuh"
#include "kvast/gpu/evict.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// Whether a policy's ranks are compared; without a budget and a room others only drop tokens.
template <class Policy>
inline constexpr bool kComparesRanks =
    kvast::detail::HasBudget<Policy> || kvast::detail::Chooses<Policy>;

/// Fills the turns of heads and, of those that act, the ranks. Heads that share a set or a budget
/// act together.
template <class Policy>
struct Rank {
  static constexpr int kThreads = 128;
  static constexpr bool kShares = kvast::detail::allocates<Policy>();
  static constexpr bool kTogether = kShares || kvast::detail::scope_of<Policy>() != Scope::head;
  detail::Place place{};
  Policy policy{};
  int layers = 1;  ///< of the cache
  bool ends_prompt = false;
  HeadChoices<Policy> choices{};

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
    const Action action = due(layer, sequence, newest + 1 - before.acted);
    const bool acts = action.acts && layer.rows[sequence].count > 0 &&
                      (action.always || exceeds(layer, table, action.budget));
    if (block.thread() == 0) {
      turn = {.acts = acts, .target = action.target, .chose = before.chose};
      turn.acted = acts && action.always ? newest + 1 : before.acted;
    }
    if (!acts) return;
    if constexpr (kvast::detail::Chooses<Policy>) {
      const typename Policy::Choice choice =
          before.chose ? choices.at(layer, table) : typename Policy::Choice{};
      if (block.thread() == 0) turn.room = policy.room(choice, newest + 1);
      fill_ranks(block, layer, table, [&](const Token& token, kvast::Block& one, int slot) {
        return policy.rank(token, state_at<Policy>(layer.layout, one, slot), choice);
      });
    } else {
      fill_ranks(block, layer, table, [&](const Token& token, kvast::Block& one, int slot) {
        return policy.rank(token, state_at<Policy>(layer.layout, one, slot));
      });
    }
  }

 private:
  KVAST_HD Action due(const LayerView& layer, int sequence, int since) const {
    When when{};
    if constexpr (requires { policy.when; }) when = policy.when;
    Budget budget = kNoBudget;
    const Layer here{.index = layer.layer, .layers = layers, .seen = layer.newest(sequence) + 1};
    if constexpr (requires { policy.budget(here); }) budget = policy.budget(here);
    return action_of(when, budget, ends_prompt, since);
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

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
