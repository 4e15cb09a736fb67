// expect: kvast policy: has observe() but does not need attention, so it would never be called: set
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Unheard {
  static constexpr kvast::Needs needs{};
  struct State {
    float mass = 0.0F;
  };
  void observe(State& state, kvast::Attention seen) const { state.mass += seen.weight; }
  float rank(kvast::Token, State state) const { return state.mass; }
};
static_assert(kvast::check_policy<Unheard>());
