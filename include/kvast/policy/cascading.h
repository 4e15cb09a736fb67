// SPDX-License-Identifier: Apache-2.0
// Cascading: a near past that is whole, and farther ones that are thinned out.
#pragma once

#include <algorithm>
#include <vector>

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps sinks and `rings` rings of `ring` tokens. Ring c takes every 2^c-th token that it is
/// offered and hands its oldest on to ring c + 1; an offer out of turn replaces its newest token
/// where it has received at least as much attention. Until the rings are full each takes all. Ref:
/// Cascading KV cache, arXiv:2406.17808, §3 and its code.   State: 8 bytes per token and head. The
/// paper numbers positions inside the cache: Positions::compacted. A prompt's tokens are placed in
/// order when its pass ends, with the attention of the whole pass; give it in chunks for the
/// paper's strides.
struct Cascading {
  int sinks = 64;        ///< first tokens of the sequence, always kept
  int rings = 4;         ///< in [1, 16]
  int ring = 512;        ///< tokens of each ring
  float forget = 1e-7F;  ///< 1 - beta of the moving average of attention, in (0, 1]
  When when = When::step();
  Reduce reduce = Reduce::max;
  static constexpr Needs needs{.attention = true};
  static constexpr bool kPlaces = true;  ///< a token that was dropped cannot come back
  struct State {
    float average = 0.0F;
    int ring = -1;  ///< where the token is; -1: it was not placed yet
  };

  KVAST_HD void observe(State& s, Attention a) const {
    s.average += forget * (a.weight - s.average);
  }
  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    std::vector<std::vector<std::size_t>> members(static_cast<std::size_t>(rings));
    int placed = 0;
    for (std::size_t at = 0; at < ranks.size(); ++at) {
      ranks[at] = kPin;
      const int where = view.states[at].ring;
      if (view.tokens[at].position < sinks) continue;
      if (where >= 0) {
        members[static_cast<std::size_t>(where)].push_back(at);
        ++placed;
        continue;
      }
      // tokens come in order of position, so all earlier ones have a place by now
      placed += place(view, at, placed >= rings * ring, members);
    }
    for (std::size_t at = 0; at < ranks.size(); ++at) {
      if (view.tokens[at].position >= sinks && view.states[at].ring < 0) ranks[at] = kDrop;
    }
  }
  void validate(Caller caller) const {
    require(sinks >= 0, caller, "Cascading.sinks is ", sinks, ", must be at least 0");
    require(rings >= 1 && rings <= 16, caller, "Cascading.rings is ", rings,
            ", must lie in [1, 16]");
    require(ring >= 1 && ring <= (1 << 24), caller, "Cascading.ring is ", ring,
            ", must lie in [1, 2^24]");
    require(forget > 0.0F && forget <= 1.0F, caller, "Cascading.forget is ", forget,
            ", must lie in (0, 1]");
  }

 private:
  /// Offers token `carried` to the rings; 1 where there is a token more than before.
  int place(HeadView<State>& view, std::size_t carried, bool full,
            std::vector<std::vector<std::size_t>>& members) const {
    const int turn = view.tokens[carried].position - sinks;
    for (int level = 0; level < rings; ++level) {
      std::vector<std::size_t>& here = members[static_cast<std::size_t>(level)];
      const bool takes = !full || turn % (1 << level) == 0;
      if (static_cast<int>(here.size()) < ring && (takes || here.empty())) {
        here.push_back(carried);
        view.states[carried].ring = level;
        return 1;
      }
      if (!takes) {
        const std::size_t newest = here.back();
        const bool wins =
            rank_key(view.states[carried].average) >= rank_key(view.states[newest].average);
        view.states[wins ? newest : carried].ring = -1;
        if (wins) {
          here.back() = carried;
          view.states[carried].ring = level;
        }
        return 0;
      }
      const std::size_t oldest = here.front();
      here.erase(here.begin());
      here.push_back(carried);
      view.states[carried].ring = level;
      carried = oldest;
    }
    view.states[carried].ring = -1;
    return 0;
  }
};
static_assert(check_policy<Cascading>());

}  // namespace kvast
