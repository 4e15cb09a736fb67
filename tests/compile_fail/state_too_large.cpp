// expect: kvast policy: State must be at most 256 bytes, there is one per token and head
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Hoarder {
  static constexpr kvast::Needs needs{};
  struct State {
    float history[65];
  };
  float rank(kvast::Token, const State&) const { return 0.0F; }
};
static_assert(kvast::check_policy<Hoarder>());
