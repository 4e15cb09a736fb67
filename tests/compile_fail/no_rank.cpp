// expect: kvast policy: must have float rank(Token, State) const, or void rank_head(HeadView<State>
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Undecided {
  static constexpr kvast::Needs needs{};
  struct State {};
  double rank(kvast::Token, State) const { return 0.0; }  // not float
};
static_assert(kvast::check_policy<Undecided>());
