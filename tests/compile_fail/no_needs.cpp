// expect: kvast policy: must say what it needs: static constexpr Needs needs
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Silent {
  struct State {};
  float rank(kvast::Token, State) const { return 0.0F; }
};
static_assert(kvast::check_policy<Silent>());
