// SPDX-License-Identifier: Apache-2.0
// DBudgetKV: no budget; the middle of the prompt goes while the attention map hardly changes.
#pragma once

#include <algorithm>
#include <cmath>

#include "kvast/core/check_policy.h"

namespace kvast {

/// At a prompt's end, drops tokens from the middle outwards as long as the Frobenius norm of the
/// attention that they took stays below `threshold` of the norm of all. Ref: DBudgetKV,
/// arXiv:2502.16886; after its abstract and summaries, no code was published: the order (first and
/// newest tokens last) and the norm of the head's own map are our reading.   State: 4 bytes per
/// token and head.
struct DBudgetKV {
  float threshold = 0.01F;  ///< relative change that is allowed, in [0, 1]
  int sinks = 4;            ///< first tokens, always kept
  int recent = 32;          ///< newest tokens, always kept
  When when = When::prompt();
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  struct State {
    float squares = 0.0F;
  };

  KVAST_HD void observe(State& s, Attention a) const { s.squares += a.weight * a.weight; }
  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    const int count = static_cast<int>(ranks.size());
    std::fill(ranks.begin(), ranks.end(), kPin);
    double total = 0.0;
    for (const State& state : view.states) total += static_cast<double>(state.squares);
    if (!is_finite(total)) return;  // NaN or infinity in the map: nothing is known of it
    const double allowed = total * static_cast<double>(threshold) * static_cast<double>(threshold);
    double dropped = 0.0;
    // (count - 1) / 2, then its neighbours by distance, the older one first
    for (int step = 0; step < count; ++step) {
      const int away = (step + 1) / 2 * (step % 2 == 0 ? 1 : -1);
      const int at = (count - 1) / 2 + (count % 2 == 0 ? -away : away);
      const Token token = view.tokens[static_cast<std::size_t>(at)];
      if (token.position < sinks || token.age < recent) continue;
      dropped += static_cast<double>(view.states[static_cast<std::size_t>(at)].squares);
      if (dropped > allowed) return;
      ranks[static_cast<std::size_t>(at)] = kDrop;
    }
  }
  void validate(Caller caller) const {
    require(threshold >= 0.0F && threshold <= 1.0F, caller, "DBudgetKV.threshold is ", threshold,
            ", must lie in [0, 1]");
    require(sinks >= 0, caller, "DBudgetKV.sinks is ", sinks, ", must be at least 0");
    require(recent >= 1, caller, "DBudgetKV.recent is ", recent, ", must be at least 1");
  }
};
static_assert(check_policy<DBudgetKV>());

}  // namespace kvast
