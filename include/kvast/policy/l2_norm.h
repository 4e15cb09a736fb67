// SPDX-License-Identifier: Apache-2.0
// L2Norm: keys of small norm draw attention. Needs no weights, so it works beside any attention
// kernel.
#pragma once

#include <algorithm>

#include "kvast/core/check_policy.h"
#include "kvast/core/sets.h"

namespace kvast {

/// Keeps the keys of smallest L2 norm.
/// Ref: arXiv:2406.11430, §3.   State: 4 bytes per token and head (the norm, taken when the key
/// arrives). The authors protect nothing and skip the first two layers; they cut 2 % whenever the
/// cache is full.
struct L2Norm {
  int tokens_kept = 512;               ///< budget per head
  int recent = 0;                      ///< newest tokens, always kept; not in the paper
  LayerSet skip = LayerSet::first(2);  ///< layers that keep everything
  When when = When::full(10);
  static constexpr bool needs_budget = true;  ///< `skip` must not hold all layers
  static constexpr Needs needs{.key_norms = true};
  struct State {};

  KVAST_HD float rank(Token t, State) const { return t.age < recent ? kPin : -t.key_norm; }
  KVAST_HD Budget budget(Layer layer) const {
    return skip.contains(layer.index) ? kNoBudget : tokens(tokens_kept);
  }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const { check_kept("L2Norm", tokens_kept, recent, caller); }
  /// The default may skip more layers than a toy model has.
  void validate_shape(const ShapeList& shape, Caller caller) const {
    require(skip.end() <= std::max(shape.layers(), 2), caller, "L2Norm.skip has layer ",
            skip.end() - 1, ", the model has ", shape.layers(), " layers");
  }
};
static_assert(check_policy<L2Norm>());

}  // namespace kvast
