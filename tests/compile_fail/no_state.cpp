// expect: kvast policy: must have a State per token: struct State {}
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

struct Stateless {
  static constexpr kvast::Needs needs{};
};
static_assert(kvast::check_policy<Stateless>());
