// SPDX-License-Identifier: Apache-2.0
// ThinK<S>: keys lose the channels that the prompt's queries hardly look at.
#pragma once

#include <algorithm>

#include "kvast/core/channels.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// Another storage whose sealed keys keep a part of their channels, which each kv head chooses at
/// the end of the first prompt: those with the largest product of the newest queries' energy and
/// the kept keys'. The newest tokens stay whole, and values always do; until the prompt ends all
/// do. Keys are judged as they meet queries, after RoPE, and must not be in a basis. The choice
/// costs 2 bytes per channel and head outside the pool. Ref: ThinK, arXiv:2407.21018, §3; there the
/// newest tokens are 32 exactly, here up to 31 more wait for their block to fill.
template <class Inner>
struct ThinK : Inner {
  float prune = 0.4F;  ///< share of the channels dropped, in [0, 1); kept are multiples of 8
  int recent = 32;     ///< newest tokens with all channels
  int window = 32;     ///< newest queries of the prompt that choose
  /// What a rotation turns together stays together. Of rotations of all channels: where only the
  /// first ones are rotated, as halves, none fits.
  ChannelPairs pairs = ChannelPairs::none;

  template <class Simd>
  StoragePlan plan(int layer) const {
    StoragePlan plan = Inner::template plan<Simd>(layer);
    require(!plan.channels.chooses(), Caller::here(),
            "ThinK: the storage underneath chooses channels already; give one");
    if (plan.coded_keys == nullptr) {
      plan.coded_keys = plan.dense_keys;
      plan.coded_values = plan.dense_values;
    }
    plan.residual = std::max(plan.residual, recent);
    plan.channels = {.pruned = prune, .window = window, .pairs = pairs};
    return plan;
  }
  void validate(Caller caller) const {
    Inner::validate(caller);
    require(prune >= 0.0F && prune < 1.0F, caller, "ThinK.prune is ", prune,
            ", must lie in [0, 1)");
    require(recent >= 0 && recent <= (1 << 20), caller, "ThinK.recent is ", recent,
            ", must lie in [0, 2^20]");
    require(window >= 1 && window <= 4096, caller, "ThinK.window is ", window,
            ", must lie in [1, 4096]");
    require(pairs <= ChannelPairs::interleaved, caller, "ThinK.pairs is ", static_cast<int>(pairs),
            ", must be none, halves or interleaved");
  }
};

}  // namespace kvast
