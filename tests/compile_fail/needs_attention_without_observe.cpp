// expect: kvast policy: needs attention, so it must have void observe(State&, Attention) const
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Deaf {
  static constexpr kvast::Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };
  void observe(State& state, kvast::Attention seen) { state.mass += seen.weight; }  // not const
  float rank(kvast::Token, State state) const { return state.mass; }
};
static_assert(kvast::check_policy<Deaf>());
