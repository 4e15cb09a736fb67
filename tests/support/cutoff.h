// SPDX-License-Identifier: Apache-2.0
// A policy with a value per head (tier 2) and without a budget, for both backends.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast::test {

/// No budget: drops what has less than a share of the head's heaviest token.
struct Cutoff {
  float share = 0.25F;
  static constexpr Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };
  struct Head {
    float most = 0.0F;
  };

  KVAST_HD void observe(State& state, Attention seen) const { state.mass += seen.weight; }
  KVAST_HD Head summarize(Token, State state) const { return {state.mass}; }
  KVAST_HD Head merge(Head left, Head right) const {
    return {left.most > right.most ? left.most : right.most};
  }
  KVAST_HD float rank(Token token, State state, Head head) const {
    return token.age < 4 || state.mass >= share * head.most ? kPin : kDrop;
  }
};
static_assert(check_policy<Cutoff>());

}  // namespace kvast::test
