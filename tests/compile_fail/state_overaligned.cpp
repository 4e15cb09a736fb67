// expect: kvast policy: State must be aligned to at most 16 bytes, as its memory is
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Wide {
  static constexpr kvast::Needs needs{};
  struct alignas(32) State {
    float lanes[8];
  };
  float rank(kvast::Token, const State&) const { return 0.0F; }
};
static_assert(kvast::check_policy<Wide>());
