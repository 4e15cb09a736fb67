// SPDX-License-Identifier: Apache-2.0
// What a policy's `when` and budget make of a pass: nothing, heads beyond the budget, or every
// head.
#pragma once

#include "kvast/core/policy.h"

namespace kvast {

struct Action {
  bool acts = false;
  bool always = false;  ///< whether or not a head exceeds the budget
  int budget = -1;      ///< tokens; negative: none
  int target = -1;      ///< tokens to come down to; negative: whatever the ranks say
};

/// At the end of a pass; `since`: positions since the policy acted on the head without a budget.
KVAST_HD constexpr Action action_of(When when, Budget budget, bool ends_prompt, int since) {
  const bool free = !budget.limited() || budget.cap;
  Action action{.acts = true, .always = free, .budget = budget.tokens, .target = budget.tokens};
  if (when.kind == When::Kind::prompt) action.acts = ends_prompt;
  if (when.kind == When::Kind::full) {
    if (free) {
      action.always = since >= when.batch;
      action.acts = action.always || budget.limited();
    } else {
      // a schedule that follows the tokens seen may give a layer less than a batch
      if (budget.tokens >= when.batch) action.target = budget.tokens - (when.batch - 1);
    }
  }
  return action;
}

}  // namespace kvast
