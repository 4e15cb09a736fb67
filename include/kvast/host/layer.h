// SPDX-License-Identifier: Apache-2.0
// A layer of a cache: its heads, and what a pass has done to it so far.
#pragma once

#include <cstdint>
#include <vector>

#include "kvast/core/pass_options.h"
#include "kvast/host/evict.h"

namespace kvast {

/// How far a pass is with a layer.
enum class Stage : std::uint8_t { idle, appended, attended, committed };

/// The last queries of earlier passes, for policies that replay them: `[positions, query_heads,
/// head_dim]`, scaled.
struct QueryRing {
  std::vector<float> queries;
  std::vector<int> positions;
};

struct LayerState {
  LayerPlan plan;
  std::vector<Head> heads;
  Stage stage = Stage::idle;
  bool observed = false;          ///< `shadow` holds states that wait for the commit
  std::vector<std::byte> shadow;  ///< [blocks of all heads, 32, state]
  QueryRing ring;
  QueryRing pending_ring;                ///< becomes `ring` at the commit
  int last_act = -1;                     ///< position at which a policy without budget acted last
  std::vector<std::vector<Move>> moves;  ///< [heads] of the last commit

  int blocks() const {
    int count = 0;
    for (const Head& head : heads) count += head.blocks();
    return count;
  }
};

}  // namespace kvast
