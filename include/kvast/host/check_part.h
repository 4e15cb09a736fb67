// SPDX-License-Identifier: Apache-2.0
// What a cache refuses of a policy, or of a part of one, when it is made.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kvast/core/compose.h"

namespace kvast::detail {

/// Throws Error where a part cannot act in a layer as its settings say.
template <class Mine>
void check_part(const Mine& policy, Layer layer, Caller caller) {
  const Budget budget = budget_of(policy, layer);
  const When when = when_of(policy);
  const Pooling pooling = pooling_of(policy);
  const std::int64_t pins = pins_of(policy).count();
  const std::int64_t least = std::max<std::int64_t>(pins, 1);
  const auto fits = [&](bool ok, const auto&... parts) {
    if (!ok) fail(caller, policy_name<Mine>(), ": ", parts...);
  };
  if constexpr (needs_budget<Mine>()) {
    bool limited = budget.limited();
    for (int other = 0; other < layer.layers && !limited; ++other)
      limited = layer.decides(other) && budget_of(policy, layer.at(other)).limited();
    fits(limited, "it has no budget in any layer that it decides for, and would do nothing");
  }
  fits(!budget.limited() || budget.tokens >= least, "the budget of layer ", layer.index, " is ",
       budget.tokens, ", must be at least 1 and at least what is always kept, ", pins);
  fits(!Mine::needs.query_moments || when.kind == When::Kind::prompt,
       "it needs query_moments, which exist at prompts' ends only, and its when is another");
  fits(when.kind <= When::Kind::full, "when.kind is ", static_cast<int>(when.kind),
       ", must be step, prompt or full");
  fits(when.batch >= 1, "when.batch is ", when.batch, ", must be at least 1");
  fits(!budget.limited() || budget.cap || when.batch - 1 <= budget.tokens - least, "when.batch is ",
       when.batch, ", must be at most ", budget.tokens - least + 1, ": of the budget, ",
       budget.tokens, ", ", pins, " tokens are always kept");
  fits(pooling.width >= 1 && pooling.width % 2 == 1, "pooling.width is ", pooling.width,
       ", must be odd");
  fits(pooling.kind <= Pooling::Kind::maximum, "pooling.kind is ", static_cast<int>(pooling.kind),
       ", must be average or maximum");
  fits(reduce_of(policy) <= Reduce::max, "reduce is ", static_cast<int>(reduce_of(policy)),
       ", must be mean, sum or max");
  fits(!Mine::needs.attention || window_of(policy) != 0,
       "window_rows() is 0, so it would see no attention");
}
}  // namespace kvast::detail
