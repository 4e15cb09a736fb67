// SPDX-License-Identifier: Apache-2.0
// StreamingLLM: attention sinks and a sliding window.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps the first tokens, which collect the attention that has nowhere else to go, and the newest
/// ones. The paper numbers positions inside the cache: CacheOptions::positions =
/// Positions::compacted. Ref: StreamingLLM, arXiv:2309.17453, §3.   State: none.
struct StreamingLLM {
  int sinks = 4;      ///< first tokens of the sequence, always kept
  int recent = 1020;  ///< newest tokens, always kept
  When when = When::step();
  static constexpr Needs needs{};
  struct State {};

  KVAST_HD float rank(Token t, State) const {
    return t.position < sinks || t.age < recent ? kPin : kDrop;
  }
  void validate(Caller caller) const {
    require(sinks >= 0, caller, "StreamingLLM.sinks is ", sinks, ", must be at least 0");
    require(recent >= 1, caller, "StreamingLLM.recent is ", recent, ", must be at least 1");
  }
};
static_assert(check_policy<StreamingLLM>());

}  // namespace kvast
