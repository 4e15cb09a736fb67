// SPDX-License-Identifier: Apache-2.0
// A layer of a cache: its heads, and what a pass has done to it so far.
#pragma once

#include <cstdint>
#include <vector>

#include "kvast/core/pass_options.h"
#include "kvast/host/evict.h"
#include "kvast/host/moments.h"

namespace kvast {

/// How far a pass is with a layer.
enum class Stage : std::uint8_t { idle, appended, attended, committed };

/// The last queries of earlier passes, for policies that replay them: `[positions, query_heads,
/// head_dim]`, scaled.
struct QueryRing {
  std::vector<float> queries;
  std::vector<int> positions;
};

/// A layer's policy states as they were before the open pass observed: what a dropped pass goes
/// back to. Layers that commit one by one hand the same memory on, and find it in the processor's
/// cache.
struct StatesBefore {
  std::vector<std::byte> states;         ///< [blocks of all heads, 32, state]
  std::vector<std::size_t> first_block;  ///< [heads] of `states`
};

struct LayerState {
  LayerPlan plan;
  Budget budget;  ///< the policy's, for this layer
  std::vector<Head> heads;
  Stage stage = Stage::idle;
  bool observed = false;  ///< the states changed in this pass, `before` holds the old ones
  StatesBefore before;
  QueryRing ring;
  QueryRing pending_ring;                ///< becomes `ring` at the commit
  QueryMoments moments;                  ///< of the open pass, where the policy needs them
  int last_act = -1;                     ///< position at which a policy without budget acted last
  std::vector<std::vector<Move>> moves;  ///< [heads] of the last commit

  int blocks() const {
    int count = 0;
    for (const Head& head : heads) count += head.blocks();
    return count;
  }
};

}  // namespace kvast
