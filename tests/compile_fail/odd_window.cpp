// expect: kvast policy: window_rows must be int window_rows() const
// SPDX-License-Identifier: Apache-2.0
#include "kvast/core/check_policy.h"

namespace kvast {

struct Odd {
  static constexpr Needs needs{};
  struct State {};
  float rank(Token, State) const { return kPin; }
  long window_rows() const { return 8; }
};
static_assert(check_policy<Odd>());

}  // namespace kvast
