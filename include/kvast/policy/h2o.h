// SPDX-License-Identifier: Apache-2.0
// H2O: heavy hitters, by accumulated attention.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps the tokens that received most attention so far, and the newest ones.
/// Ref: H2O, arXiv:2306.14048, Algorithm 1.   State: 4 bytes per token and head.
/// Plain sums favour old tokens (340 : 1 over 2,048 positions of uniform attention); `by_lifetime`
/// divides by the number of queries that could see the token, which is not in the paper.
struct H2O {
  int heavy = 256;   ///< tokens kept for their accumulated attention
  int recent = 256;  ///< newest tokens, always kept
  bool by_lifetime = false;
  When when = When::step();
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };

  KVAST_HD void observe(State& s, Attention a) const { s.mass += a.weight; }
  KVAST_HD float rank(Token t, State s) const {
    const float score = by_lifetime ? s.mass / static_cast<float>(t.age + 1) : s.mass;
    return t.age < recent ? kPin : score;
  }
  KVAST_HD Budget budget(Layer) const { return tokens(heavy + recent); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const {
    require(heavy >= 0, caller, "H2O.heavy is ", heavy, ", must be at least 0");
    require(recent >= 0, caller, "H2O.recent is ", recent, ", must be at least 0");
    require(heavy <= (1 << 30) && recent <= (1 << 30) - heavy, caller, "H2O.heavy + H2O.recent is ",
            heavy, " + ", recent, ", must be at most 2^30");
  }
};
static_assert(check_policy<H2O>());

}  // namespace kvast
