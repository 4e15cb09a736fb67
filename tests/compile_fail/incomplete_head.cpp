// expect: kvast policy: has a Head, so it must have Head summarize(Token, State) const, Head
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Beheaded {
  static constexpr kvast::Needs needs{};
  struct State {};
  struct Head {
    float most = 0.0F;
  };
  Head summarize(kvast::Token, State) const { return {}; }
  float rank(kvast::Token, State, Head) const { return 0.0F; }  // and no merge
};
static_assert(kvast::check_policy<Beheaded>());
