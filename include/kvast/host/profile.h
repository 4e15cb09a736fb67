// SPDX-License-Identifier: Apache-2.0
// profile: at a prompt's end each head's attention is looked at a second time, and a policy chooses
// what the head keeps from then on.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/host/observe_layer.h"
#include "kvast/host/rank.h"

namespace kvast {

/// Marks each head's most frequent tokens, profiles it and chooses. `source(head, first, end,
/// sink)` shows the weights of a range of blocks (see `observing`) as often as it is asked.
template <class Policy, class Source>
void profile_layer(const Policy& policy, LayerState& layer, int layer_index,
                   const Executor& executor, int range, int newest, Source&& source) {
  const SideLayout& side = layer.plan.side;
  const auto heads = static_cast<int>(layer.heads.size());
  Choices& choices = layer.pending_choices;
  choices = layer.choices;
  if (std::find(choices.made.begin(), choices.made.end(), false) == choices.made.end()) return;
  int most = 0;
  for (const Head& head : layer.heads) most = std::max(most, head.blocks());
  const int ranges = (most + range - 1) / range;
  std::vector<typename Policy::Profile> partial(static_cast<std::size_t>(heads * ranges));
  executor.parallel_for(heads, [&](int at) {
    const Head& head = layer.heads[static_cast<std::size_t>(at)];
    std::vector<RankWork::Candidate> candidates;
    for (int index = 0; index < head.blocks(); ++index) {
      Block& block = head.block(index);
      for (std::uint32_t live = block.live; live != 0; live &= live - 1U) {
        const int slot = std::countr_zero(live);
        const Token token = token_at(side, block, slot, {newest, layer_index, at});
        candidates.push_back(
            {rank_key(policy.frequency(token, state_at<Policy>(side, block, slot))), token.position,
             index * kBlockTokens + slot});
      }
    }
    const auto count = std::min(candidates.size(),
                                static_cast<std::size_t>(std::max(policy.marks(newest + 1), 0)));
    std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(count),
                      candidates.end(),
                      [](const auto& left, const auto& right) { return right < left; });
    for (std::size_t mark = 0; mark < count; ++mark) {
      if (candidates[mark].key <= kDropKey) break;
      const int slot = candidates[mark].slot;
      policy.mark(state_at<Policy>(side, head.block(slot / kBlockTokens), slot % kBlockTokens));
    }
  });
  executor.parallel_for(heads * ranges, [&](int index) {
    const int head = index / ranges;
    const int first = index % ranges * range;
    const int end = std::min(layer.heads[static_cast<std::size_t>(head)].blocks(), first + range);
    if (first >= end) return;
    auto& profile = partial[static_cast<std::size_t>(index)];
    source(head, first, end,
           [&](Block& block, std::uint32_t visible, const float* weights, Attention seen) {
             for (; visible != 0; visible &= visible - 1U) {
               const int slot = std::countr_zero(visible);
               seen.weight = weights[slot];
               policy.profile(profile, token_at(side, block, slot, {seen.step, layer_index, head}),
                              state_at<Policy>(side, block, slot), seen);
             }
           });
  });
  for (int head = 0; head < heads; ++head) {
    if (choices.made[static_cast<std::size_t>(head)]) continue;
    typename Policy::Profile whole{};
    for (int at = 0; at < ranges; ++at)  // in order: the same bits for any number of threads
      whole = policy.merge(whole, partial[static_cast<std::size_t>(head * ranges + at)]);
    choices.at<typename Policy::Choice>(head) = policy.choose(whole, newest + 1);
    choices.made[static_cast<std::size_t>(head)] = true;
  }
}

}  // namespace kvast
