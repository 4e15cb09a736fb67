// SPDX-License-Identifier: Apache-2.0
// Full: the baseline, and the shortest policy to copy.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps every token.
struct Full {
  static constexpr Needs needs{};
  static constexpr bool evicts = false;
  struct State {};

  KVAST_HD float rank(Token, State) const { return kPin; }
};
static_assert(check_policy<Full>());

}  // namespace kvast
