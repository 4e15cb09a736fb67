// SPDX-License-Identifier: Apache-2.0
// TOVA: whatever the newest query cares for least goes, for all heads of a layer at once.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps the tokens that the newest query attends to most; one set for all heads of a layer.
/// Ref: TOVA, arXiv:2401.06104, §4.   State: 4 bytes per token and head.
/// Nothing is protected, as in the paper: the newest token itself may go. kvpress protects it:
/// `recent = 1`.
struct TOVA {
  int tokens_kept = 512;  ///< budget per head
  int recent = 0;         ///< newest tokens, always kept
  When when = When::step();
  static constexpr Needs needs{.attention = true};
  static constexpr Scope scope = Scope::layer;
  struct State {
    float last = 0.0F;
  };

  KVAST_HD void observe(State& s, Attention a) const { s.last = a.weight; }
  KVAST_HD float rank(Token t, State s) const { return t.age < recent ? kPin : s.last; }
  int window_rows() const { return 1; }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const { check_kept("TOVA", tokens_kept, recent, caller); }
};
static_assert(check_policy<TOVA>());

}  // namespace kvast
