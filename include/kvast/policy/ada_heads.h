// SPDX-License-Identifier: Apache-2.0
// AdaHeads: the heads of a layer share one budget.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Another policy, whose budget becomes the mean over the heads of a layer: heads whose tokens rank
/// higher keep more, and the sum is exact. Ranks must be comparable between heads, as attention
/// weights are. Ref: Ada-KV, arXiv:2407.11550, §3.2.   State: the policy's own.
template <class Inner>
struct AdaHeads : Inner {
  static_assert(!detail::Composite<Inner>,
                "AdaHeads: wrap the parts of a policy made of others, not the whole");
  static_assert(detail::HasBudget<Inner>,
                "AdaHeads: the policy has no budget that heads could share");
  static_assert(detail::scope_of<Inner>() == Scope::head,
                "AdaHeads: a policy whose heads keep one set (TOVA) gives each as many tokens");
  static_assert(
      !requires { Inner::ranks_in_head; },
      "AdaHeads: the policy's ranks say nothing beside another head's (RoCo)");
  static_assert(!detail::allocates<Inner>(), "AdaHeads: the policy shares its budget already");
  static constexpr bool needs_budget = true;
  float safeguard = 0.2F;  ///< part of the budget that every head has for certain, in [0, 1]
  Allocation::Kind kind = Allocation::Kind::blend;

  Allocation allocation() const { return {safeguard, kind}; }
  void validate(Caller caller) const {
    if constexpr (requires(const Inner& inner) { inner.validate(caller); }) Inner::validate(caller);
    require(safeguard >= 0.0F && safeguard <= 1.0F, caller, "AdaHeads.safeguard is ", safeguard,
            ", must lie in [0, 1]");
    require(kind <= Allocation::Kind::floor, caller, "AdaHeads.kind is ", static_cast<int>(kind),
            ", must be blend or floor");
  }
};

}  // namespace kvast
