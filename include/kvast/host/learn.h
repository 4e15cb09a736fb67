// SPDX-License-Identifier: Apache-2.0
// learn: what a layer's policy, or each of its parts, wants to see of a pass, and how it is shown.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "kvast/core/compose.h"
#include "kvast/host/profile.h"

namespace kvast {

/// What the open pass is.
struct PassKind {
  int tokens = 1;
  int length = 0;  ///< positions before it
  bool ends_prompt = false;
  bool more_of_prompt = false;
  int prompt_begin = 0;  ///< first position of this prompt, or of the next one
  int prompt_end = 0;    ///< position after the last prompt that ended

  bool in_prompt() const { return ends_prompt || more_of_prompt; }
};

/// What a layer's policy wants of the open pass, all its parts together.
struct Wishes {
  bool attention = false;  ///< somebody observes its queries
  int replayed = 0;        ///< queries of earlier passes that are observed again
  int votes = 0;           ///< queries that must vote, where some may be of earlier passes
  int ring = 0;            ///< newest queries to keep for later passes
  bool moments = false;
  int moments_from = 0;   ///< position
  bool channels = false;  ///< the storage chooses channels by this prompt's queries
};

namespace detail {

/// A policy that replays and acts at prompts' ends looks only there.
template <class Policy>
bool observes(const Policy& policy, const PassKind& pass) {
  return Policy::needs.attention &&
         !(replays<Policy>() && when_of(policy).kind == When::Kind::prompt && !pass.ends_prompt);
}

/// Queries of earlier passes that it observes again. One that acts at prompts' ends asks that
/// prompt's only.
template <class Policy>
int replayed(const Policy& policy, const QueryRing& ring, const PassKind& pass) {
  if (!replays<Policy>() || !observes(policy, pass)) return 0;
  auto first = ring.positions.begin();
  if (when_of(policy).kind == When::Kind::prompt)
    first = std::lower_bound(first, ring.positions.end(), pass.prompt_begin);
  const auto held = static_cast<int>(ring.positions.end() - first);
  return std::min(held, std::max(0, window_of(policy) - pass.tokens));
}

template <class Policy>
void add_wishes(const Policy& policy, const QueryRing& ring, const PassKind& pass, Wishes& wishes) {
  const bool at_prompts = when_of(policy).kind == When::Kind::prompt;
  if constexpr (Policy::needs.query_moments) {
    wishes.moments = wishes.moments || pass.ends_prompt;
    wishes.moments_from = std::max(wishes.moments_from, policy.moments_from());
  }
  const bool now = observes(policy, pass);
  wishes.attention = wishes.attention || now;
  if (!Policy::needs.attention || !replays<Policy>()) return;
  const int window = window_of(policy);
  const bool reaches_back = pass.length > (at_prompts ? pass.prompt_begin : 0);
  if (now && reaches_back) wishes.votes = std::max(wishes.votes, window);
  wishes.replayed = std::max(wishes.replayed, replayed(policy, ring, pass));
  if (window > 1 && (!at_prompts || pass.more_of_prompt))
    wishes.ring = std::max(wishes.ring, window);
}

}  // namespace detail

template <class Policy>
Wishes wishes_of(const Policy& policy, int layer, const LayerState& state, const PassKind& pass) {
  Wishes wishes;
  detail::each_watcher(policy, pass.in_prompt(), [&](const auto& watcher) {
    for (int head = 0; head < static_cast<int>(state.heads.size()); ++head) {
      detail::of_head(watcher, layer, head, [&](const auto& mine) {
        detail::add_wishes(mine, state.ring, pass, wishes);
      });
      if (!detail::splits<std::remove_cvref_t<decltype(watcher)>, Split::heads>()) break;
    }
  });
  return wishes;
}

/// How queries are shown to policies.
struct Lesson {
  PassKind pass;
  int layer = 0;
  int rows = 1;                    ///< queries, replayed ones included
  int range = 4;                   ///< blocks of one task
  int newest = 0;                  ///< position
  bool replay = false;             ///< the rows are for those that replay, and for no others
  std::optional<Reduce> reduce{};  ///< overrides the policies' own
  const Executor* executor = nullptr;
};

/// How one policy looks at the rows.
struct Look {
  int first_row = 0;  ///< earlier queries are not observed
  Reduce reduce = Reduce::mean;
};

/// Buffers of `learn`; they grow once and are reused.
struct LearnWork {
  std::vector<StatesBefore> spare;  ///< memory of old states that no layer uses now
  std::vector<double> sums;         ///< [heads, rows] of new weights, where a policy weighs
};

namespace detail {

template <class Policy>
Look look_of(const Policy& policy, const QueryRing& ring, const Lesson& lesson) {
  const int window = window_of(policy);
  // another part may have had more queries replayed than this one asks for
  const int own = replayed(policy, ring, lesson.pass) + lesson.pass.tokens;
  return {.first_row = window < 0 ? 0 : std::max(0, lesson.rows - std::min(window, own)),
          .reduce = lesson.reduce.value_or(reduce_of(policy))};
}

/// Sums of a head's new weights, one for each of its queries.
template <class Policy, class Source>
void sum_rows(const Policy& policy, const LayerState& state, const Lesson& lesson, int head,
              const Source& source, double* sums) {
  std::fill_n(sums, lesson.rows, 0.0);
  const int blocks = state.heads[static_cast<std::size_t>(head)].blocks();
  source(
      head, 0, blocks, look_of(policy, state.ring, lesson),
      [&](Block& block, std::uint32_t visible, const float* weights, Attention seen) {
        for (; visible != 0; visible &= visible - 1U) {
          const int slot = std::countr_zero(visible);
          seen.weight = weights[slot];
          sums[seen.row] += static_cast<double>(policy.weigh(
              token_at(state.plan.side, block, slot, {lesson.newest, lesson.layer, head}), seen));
        }
      });
}

/// Where new weights go: each is divided by its row's sum, and the policy observes it.
template <class Policy>
auto observing_weighed(const Policy& policy, const LayerState& state, const Lesson& lesson,
                       int head, const double* sums) {
  return [=, &policy, &state, &lesson](Block& block, std::uint32_t visible, const float* weights,
                                       Attention seen) {
    auto* states = states_of<Policy>(state.plan.side, block);
    const double sum = sums[seen.row];
    for (; visible != 0; visible &= visible - 1U) {
      const int slot = std::countr_zero(visible);
      seen.weight = weights[slot];
      const float weight = policy.weigh(
          token_at(state.plan.side, block, slot, {lesson.newest, lesson.layer, head}), seen);
      seen.weight = sum > 0.0 ? static_cast<float>(static_cast<double>(weight) / sum) : 0.0F;
      policy.observe(states[slot], seen);
    }
  };
}

/// One watcher's part of `learn`.
template <class Watcher, class Source>
void learn_as(const Watcher& watcher, LayerState& state, const Lesson& lesson, const Source& source,
              LearnWork& work) {
  const int heads = static_cast<int>(state.heads.size());
  const auto rows = static_cast<std::size_t>(lesson.rows);
  // shown(head, body) calls body(policy) if that head's policy is to see these rows
  const auto shown = [&](int head, const auto& body) {
    of_head(watcher, lesson.layer, head, [&](const auto& mine) {
      if constexpr (std::remove_cvref_t<decltype(mine)>::needs.attention) {
        const bool replays_now = replayed(mine, state.ring, lesson.pass) > 0;
        if (observes(mine, lesson.pass) && replays_now == lesson.replay) body(mine);
      }
    });
  };
  bool any = false;
  for (int head = 0; head < heads; ++head) shown(head, [&](const auto&) { any = true; });
  if (!any) return;
  if constexpr (weighs<Watcher>()) {
    work.sums.resize(static_cast<std::size_t>(heads) * rows);
    lesson.executor->parallel_for(heads, [&](int head) {
      shown(head, [&](const auto& mine) {
        if constexpr (weighs<std::remove_cvref_t<decltype(mine)>>())
          sum_rows(mine, state, lesson, head, source,
                   work.sums.data() + static_cast<std::size_t>(head) * rows);
      });
    });
  }
  observe_blocks(
      state, *lesson.executor, lesson.range, work.spare, [&](int head, int first, int end) {
        shown(head, [&](const auto& mine) {
          const Look look = look_of(mine, state.ring, lesson);
          if constexpr (weighs<std::remove_cvref_t<decltype(mine)>>()) {
            source(head, first, end, look,
                   observing_weighed(mine, state, lesson, head,
                                     work.sums.data() + static_cast<std::size_t>(head) * rows));
          } else {
            source(head, first, end, look, observing(mine, state.plan.side));
          }
        });
      });
  if constexpr (Chooses<Watcher>) {
    if (lesson.pass.ends_prompt)
      profile_layer(watcher, state, lesson.layer, *lesson.executor, lesson.range, lesson.newest,
                    [&](int head, int first, int end, auto&& sink) {
                      source(head, first, end, look_of(watcher, state.ring, lesson), sink);
                    });
  }
}

}  // namespace detail

/// Shows a layer's policy, or each part that watches, the weights of the pass's queries; at a
/// prompt's end also lets it choose. `source(head, first_block, end_block, look, sink)` brings
/// the weights of a range of blocks (see `observing`), as often as it is asked.
template <class Policy, class Source>
void learn(const Policy& policy, LayerState& state, const Lesson& lesson, const Source& source,
           LearnWork& work) {
  detail::each_watcher(policy, lesson.pass.in_prompt(), [&](const auto& watcher) {
    detail::learn_as(watcher, state, lesson, source, work);
  });
}

}  // namespace kvast
