// SPDX-License-Identifier: Apache-2.0
// commit: observe, evict, gather, seal. What a pass did to a layer becomes final.
#pragma once

#include <span>
#include <vector>

#include "kvast/host/allocate.h"
#include "kvast/host/encode.h"
#include "kvast/host/layer.h"
#include "kvast/host/profile.h"
#include "kvast/host/select.h"

namespace kvast {

/// Buffers of one head's commit; they grow once and are reused.
struct HeadWork {
  RankWork rank;
  std::vector<RankWork*> all_ranks;  ///< of the layer's heads, where they keep one set
  EncodeScratch encode;
  std::vector<int> slots;
  EncodeCounts counts;
  std::int64_t evicted = 0;
};

/// The circumstances of one layer's commit.
struct CommitContext {
  Layer layer;
  int newest = 0;  ///< position of the pass's last token
  bool ends_prompt = false;
  bool seals = true;
  const Rope* rope = nullptr;  ///< of the model, for policies that need query moments
  const Executor* executor = nullptr;
};

namespace detail {

/// What is due: nothing, heads beyond the budget, or every head.
struct Action {
  bool acts = false;
  bool always = false;  ///< whether or not a head exceeds the budget
  int budget = -1;
  int target = -1;  ///< tokens to come down to (negative: whatever the ranks say)
};

template <class Policy>
Action decide(const Policy& policy, const LayerState& layer, const CommitContext& context) {
  if constexpr (!evicts<Policy>()) return {};
  const When when = when_of(policy);
  const Budget budget = layer.budget;
  const bool free = !budget.limited() || budget.cap;
  Action action{.acts = true, .always = free, .budget = budget.tokens, .target = budget.tokens};
  if (when.kind == When::Kind::prompt) action.acts = context.ends_prompt;
  if (when.kind == When::Kind::full) {
    if (free) {
      action.always = context.newest - layer.last_act >= when.batch;
      action.acts = action.always || budget.limited();
    } else {
      action.target = budget.tokens - (when.batch - 1);
    }
  }
  return action;
}

/// Whether any head has more tokens than its budget, or, where heads share it, all of them
/// together.
inline bool layer_exceeds(const LayerState& layer, int budget, bool together) {
  std::int64_t total = 0;
  for (const Head& head : layer.heads) {
    total += head.live();
    if (!together && head.live() > budget) return true;
  }
  return together && total > static_cast<std::int64_t>(budget) * std::ssize(layer.heads);
}

}  // namespace detail

/// Makes the pass final for one layer. Cannot fail: everything was reserved.
template <class Policy>
void commit_layer(const Policy& policy, LayerState& layer, const CommitContext& context,
                  ChoiceTable<Policy>& choices, Account& account, std::vector<HeadWork>& work) {
  LayerPlan& plan = layer.plan;
  if (work.size() < layer.heads.size()) work.resize(layer.heads.size());
  const int heads = static_cast<int>(layer.heads.size());
  const Executor alone;
  // a decode step under a small budget is over before other threads have woken up
  const Executor& executor = layer.blocks() * kBlockTokens > (1 << 14) ? *context.executor : alone;
  const detail::Action action = detail::decide(policy, layer, context);
  const auto head_at = [&](int head) -> Head& {
    return layer.heads[static_cast<std::size_t>(head)];
  };
  for (auto& moves : layer.moves) moves.clear();
  if constexpr (detail::Chooses<Policy>) {
    if (context.ends_prompt) choices.kept = choices.pending;
  }
  if constexpr (detail::evicts<Policy>()) {
    constexpr bool kShared = detail::scope_of<Policy>() == Scope::layer;
    constexpr bool kAllocates = detail::allocates<Policy>();
    const auto rank = [&](int head) {
      RankWork& ranks = work[static_cast<std::size_t>(head)].rank;
      ranks.target = action.target;
      RankContext here{context.newest, context.layer.index, head, &layer.moments, context.rope};
      if constexpr (detail::Chooses<Policy>)
        here.choice = &choices.kept[static_cast<std::size_t>(head)].choice;
      rank_tokens(policy, plan, head_at(head), here, ranks);
      pool_ranks(head_at(head), detail::pooling_of(policy), ranks);
    };
    // heads that share a set or a budget are decided together
    const bool any = action.always || detail::layer_exceeds(layer, action.budget, kAllocates);
    if (action.acts && any && (kShared || kAllocates)) {
      executor.parallel_for(heads, rank);
      std::vector<RankWork*>& all = work[0].all_ranks;
      all.clear();
      for (int head = 0; head < heads; ++head)
        all.push_back(&work[static_cast<std::size_t>(head)].rank);
      if constexpr (kShared) share_ranks(all);
      if constexpr (kAllocates) allocate_budget(layer.heads, policy.allocation(), all);
    }
    if (action.acts && any) {
      if (action.always) layer.last_act = context.newest;
      executor.parallel_for(heads, [&](int head) {
        HeadWork& mine = work[static_cast<std::size_t>(head)];
        if constexpr (!kShared && !kAllocates) {
          if (!action.always && head_at(head).live() <= action.budget) return;
          rank(head);
        }
        select_victims(head_at(head), mine.rank);
        mine.evicted += static_cast<std::int64_t>(mine.rank.victims.size());
        evict_tokens(plan, head_at(head), mine.rank.victims, account, mine.slots,
                     &layer.moves[static_cast<std::size_t>(head)]);
      });
    }
  }
  if (plan.is_coded()) {
    executor.parallel_for(heads, [&](int head) {
      HeadWork& mine = work[static_cast<std::size_t>(head)];
      if (context.seals) seal_tokens(plan, head_at(head), account, mine.encode, mine.counts);
      repack_tokens(plan, head_at(head), account, mine.encode, mine.counts);
    });
  }
  for (Head& head : layer.heads) {
    release_empty_array(head.coded, account);
    release_empty_array(head.dense, account);
  }
}

}  // namespace kvast
