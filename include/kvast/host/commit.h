// SPDX-License-Identifier: Apache-2.0
// commit: observe, evict, gather, seal. What a pass did to a layer becomes final.
#pragma once

#include <span>
#include <vector>

#include "kvast/host/encode.h"
#include "kvast/host/layer.h"
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
  const Executor* executor = nullptr;
};

namespace detail {

/// Tokens to come down to (negative: whatever the ranks say), or nothing to do at all.
struct Action {
  bool acts = false;
  int budget = -1;
  int target = -1;
};

template <class Policy>
Action decide(const Policy& policy, const LayerState& layer, const CommitContext& context) {
  if constexpr (!evicts<Policy>()) return {};
  const When when = when_of(policy);
  const Budget budget = budget_of(policy, context.layer);
  Action action{.acts = true, .budget = budget.tokens, .target = budget.tokens};
  if (when.kind == When::Kind::prompt) action.acts = context.ends_prompt;
  if (when.kind == When::Kind::full) {
    if (budget.limited()) {
      action.target = budget.tokens - (when.batch - 1);
    } else {
      action.acts = context.newest - layer.last_act >= when.batch;
    }
  }
  return action;
}

}  // namespace detail

/// Makes the pass final for one layer. Cannot fail: everything was reserved.
template <class Policy>
void commit_layer(const Policy& policy, LayerState& layer, const CommitContext& context,
                  Account& account, std::vector<HeadWork>& work) {
  LayerPlan& plan = layer.plan;
  if (work.size() < layer.heads.size()) work.resize(layer.heads.size());
  const int heads = static_cast<int>(layer.heads.size());
  const Executor alone;
  // a decode step under a small budget is over before other threads have woken up
  const Executor& executor = layer.blocks() * kBlockTokens > (1 << 14) ? *context.executor : alone;
  const detail::Action action = detail::decide(policy, layer, context);
  const auto exceeded = [&](const Head& head) {
    return action.budget < 0 || head.live() > action.budget;
  };
  const auto head_at = [&](int head) -> Head& {
    return layer.heads[static_cast<std::size_t>(head)];
  };
  for (auto& moves : layer.moves) moves.clear();
  if constexpr (detail::evicts<Policy>()) {
    constexpr bool kShared = detail::scope_of<Policy>() == Scope::layer;
    const auto rank = [&](int head) {
      RankWork& ranks = work[static_cast<std::size_t>(head)].rank;
      rank_tokens(policy, plan, head_at(head), context.newest, action.target, ranks);
      pool_ranks(head_at(head), detail::pooling_of(policy), ranks);
    };
    if (action.acts && kShared && exceeded(head_at(0))) {
      executor.parallel_for(heads, rank);
      std::vector<RankWork*>& all = work[0].all_ranks;
      all.clear();
      for (int head = 0; head < heads; ++head)
        all.push_back(&work[static_cast<std::size_t>(head)].rank);
      share_ranks(all);
    }
    if (action.acts) {
      layer.last_act = context.newest;
      executor.parallel_for(heads, [&](int head) {
        HeadWork& mine = work[static_cast<std::size_t>(head)];
        if (!exceeded(head_at(head))) return;
        if (!kShared) rank(head);
        select_victims(head_at(head), action.target, mine.rank);
        mine.evicted += static_cast<std::int64_t>(mine.rank.victims.size());
        evict_tokens(plan, head_at(head), mine.rank.victims, account, mine.slots,
                     &layer.moves[static_cast<std::size_t>(head)]);
      });
    }
  }
  if (!plan.is_coded()) return;
  executor.parallel_for(heads, [&](int head) {
    HeadWork& mine = work[static_cast<std::size_t>(head)];
    if (context.seals) seal_tokens(plan, head_at(head), account, mine.encode, mine.counts);
    repack_tokens(plan, head_at(head), account, mine.encode, mine.counts);
  });
}

}  // namespace kvast
