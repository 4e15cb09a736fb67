// expect: kvast policy: budget must be Budget budget(Layer) const
// SPDX-License-Identifier: Apache-2.0
#include "kvast/core/check_policy.h"

namespace kvast {

struct Odd {
  static constexpr Needs needs{};
  struct State {};
  float rank(Token, State) const { return kPin; }
  Budget budget() const { return tokens(8); }
};
static_assert(check_policy<Odd>());

}  // namespace kvast
