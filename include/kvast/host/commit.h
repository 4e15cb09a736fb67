// SPDX-License-Identifier: Apache-2.0
// commit: observe, evict, gather, seal. What a pass did to a layer becomes final.
#pragma once

#include <span>
#include <vector>

#include "kvast/core/action.h"
#include "kvast/core/compose.h"
#include "kvast/host/allocate.h"
#include "kvast/host/channels.h"
#include "kvast/host/layer.h"
#include "kvast/host/repack.h"
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
  bool waits = false;  ///< nobody acts now
  bool seals = true;
  const Rope* rope = nullptr;          ///< of the model, for policies that need query moments
  const RopeLevels* levels = nullptr;  ///< unrotated positions
  const Executor* executor = nullptr;
};

namespace detail {

/// Asks what each head may keep after this pass. Heads that have the same policy have one answer.
template <class Policy>
void ask_budgets(const Policy& policy, std::vector<HeadTurn>& turns, const CommitContext& context) {
  for (std::size_t head = 0; head < turns.size(); ++head) {
    HeadTurn& turn = turns[head];
    if (head > 0 && !splits<Policy, Split::heads>()) {
      turn.budget = turns[0].budget;
      continue;
    }
    Layer layer = context.layer;
    layer.own = &turn.own[context.ends_prompt ? 1 : 0];
    of_head(policy, layer.index, static_cast<int>(head),
            [&](const auto& mine) { turn.budget = budget_of(mine, layer); });
  }
}

template <class Policy>
Action decide(const Policy& policy, const HeadTurn& turn, const CommitContext& context) {
  Action action =
      action_of(when_of(policy), turn.budget, context.ends_prompt, context.newest - turn.last_act);
  action.acts = action.acts && !context.waits;
  return action;
}

/// Whether heads that are decided together exceed their budget: any of them, or, where they share
/// it, all together.
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
                  Account& account, std::vector<HeadWork>& work) {
  LayerPlan& plan = layer.plan;
  if (work.size() < layer.heads.size()) work.resize(layer.heads.size());
  const int heads = static_cast<int>(layer.heads.size());
  const Executor alone;
  // a decode step under a small budget is over before other threads have woken up
  const Executor& executor = layer.blocks() * kBlockTokens > (1 << 14) ? *context.executor : alone;
  const auto head_at = [&](int head) -> Head& {
    return layer.heads[static_cast<std::size_t>(head)];
  };
  for (auto& moves : layer.moves) moves.clear();
  if (context.ends_prompt && layer.choices.size > 0)
    std::swap(layer.choices, layer.pending_choices);
  if constexpr (detail::evicts<Policy>()) {
    detail::ask_budgets(policy, layer.turns, context);
    const auto rank = [&](const auto& mine, int head, int target) {
      RankWork& ranks = work[static_cast<std::size_t>(head)].rank;
      ranks.target = target;
      ranks.room = -1;  // another layer's policy may have left its own
      RankContext here{.newest = context.newest,
                       .layer = context.layer.index,
                       .head = head,
                       .moments = &layer.moments,
                       .rope = context.rope,
                       .levels = context.levels};
      using Mine = std::remove_cvref_t<decltype(mine)>;
      if constexpr (detail::Chooses<Mine>)
        here.choice = &layer.choices.template at<typename Mine::Choice>(head);
      rank_tokens(mine, plan, head_at(head), here, ranks);
      pool_ranks(head_at(head), detail::pooling_of(mine), ranks);
    };
    const auto evict = [&](int head, const Action& action) {
      HeadWork& mine = work[static_cast<std::size_t>(head)];
      select_victims(head_at(head), mine.rank);
      mine.evicted += static_cast<std::int64_t>(mine.rank.victims.size());
      evict_tokens(plan, head_at(head), mine.rank.victims, account, mine.slots,
                   &layer.moves[static_cast<std::size_t>(head)]);
      if (action.always) layer.turns[static_cast<std::size_t>(head)].last_act = context.newest;
    };
    if constexpr (detail::scope_of<Policy>() == Scope::layer || detail::allocates<Policy>()) {
      // heads that share a set or a budget are decided together
      const Action action = detail::decide(policy, layer.turns[0], context);
      if (action.acts && (action.always || detail::layer_exceeds(layer, action.budget,
                                                                 detail::allocates<Policy>()))) {
        executor.parallel_for(heads, [&](int head) { rank(policy, head, action.target); });
        std::vector<RankWork*>& all = work[0].all_ranks;
        all.clear();
        for (int head = 0; head < heads; ++head)
          all.push_back(&work[static_cast<std::size_t>(head)].rank);
        if constexpr (detail::scope_of<Policy>() == Scope::layer) share_ranks(all);
        if constexpr (detail::allocates<Policy>())
          allocate_budget(layer.heads, policy.allocation(), all);
        executor.parallel_for(heads, [&](int head) { evict(head, action); });
      }
    } else {
      // if_due(head, body) calls body(policy, action) if there is something to do for a head
      const auto if_due = [&](int head, const auto& body) {
        detail::of_head(policy, context.layer.index, head, [&](const auto& mine) {
          if constexpr (detail::evicts<std::remove_cvref_t<decltype(mine)>>()) {
            const Action action =
                detail::decide(mine, layer.turns[static_cast<std::size_t>(head)], context);
            if (action.acts && (action.always || head_at(head).live() > action.budget))
              body(mine, action);
          }
        });
      };
      bool any = false;
      for (int head = 0; head < heads; ++head)
        if_due(head, [&](const auto&, const Action&) { any = true; });
      if (any) {
        executor.parallel_for(heads, [&](int head) {
          if_due(head, [&](const auto& mine, const Action& action) {
            rank(mine, head, action.target);
            evict(head, action);
          });
        });
      }
    }
  }
  if (plan.is_coded()) {
    executor.parallel_for(heads, [&](int head) {
      HeadWork& mine = work[static_cast<std::size_t>(head)];
      if (plan.prunes() && context.ends_prompt && head_at(head).channels == nullptr)
        choose_head_channels(layer, head, head_at(head), mine.encode);
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
