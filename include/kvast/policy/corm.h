// SPDX-License-Identifier: Apache-2.0
// CORM: a key stays while a recent query still cared for it. No budget; heads become ragged.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps the newest tokens and those that got at least a uniform share from one of the last
/// `window` queries. Ref: CORM, arXiv:2404.15949, §3 (definitions 1 and 2).   State: 4 bytes per
/// token and head: the last query that cared, which is enough because "important to any of the last
/// w queries" is "step - last < w". `when = When::full(s)` decides lazily, every s tokens: not the
/// same kept sets, since what waits stays visible. `reduce = Reduce::max` is "important to any
/// query head of the group"; the paper leaves the rule for GQA open. With a `cap`, those that
/// mattered longest ago go first, of equals the older.
struct Corm {
  int window = 256;  ///< queries that are remembered
  int recent = 256;  ///< newest tokens, always kept
  int cap = -1;      ///< most tokens per head, beyond the paper's form; negative: none
  When when = When::step();
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  struct State {
    int last = -(1 << 30);  ///< no query cared yet
  };

  KVAST_HD void observe(State& s, Attention a) const {
    // an exactly uniform share counts, and may come a few roundings short out of a log-sum-exp
    if (a.weight * static_cast<float>(a.visible) >= 1.0F - 1e-5F) s.last = a.step;
  }
  KVAST_HD float rank(Token t, State s) const {
    const int ago = t.position + t.age - s.last;  // queries since one cared
    if (t.age < recent) return kPin;
    if (ago >= window) return kDrop;
    return cap < 0 ? kPin : -static_cast<float>(ago);
  }
  KVAST_HD Budget budget(Layer) const { return cap < 0 ? kNoBudget : at_most(cap); }
  int window_rows() const { return window; }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const {
    require(window >= 1 && window <= (1 << 30), caller, "Corm.window is ", window,
            ", must lie in [1, 2^30]");
    require(recent >= 1, caller, "Corm.recent is ", recent, ", must be at least 1");
    require(cap <= (1 << 30), caller, "Corm.cap is ", cap, ", must be at most 2^30");
    require(cap < 0 || cap >= recent, caller, "Corm.cap is ", cap, ", must be at least recent, ",
            recent, ", or negative for none");
  }
};
static_assert(check_policy<Corm>());

}  // namespace kvast
