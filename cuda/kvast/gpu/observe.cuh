// SPDX-License-Identifier: Apache-2.0
// observe: policies' states learn what the queries of a pass attended to.
#pragma once

#include "kvast/core/check_policy.h"
#include "kvast/gpu/attend_weights.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// A place for weights (attend_weights.cuh): the policy's states.
template <class Policy>
struct ObserveStates {
  Policy policy{};
  SideLayout layout{};

  KVAST_HD void operator()(kvast::Block& block, int, int, int, int slot, bool sees,
                           const Attention& seen) const {
    if (sees) policy.observe(state_at<Policy>(layout, block, slot), seen);
  }
};

/// Attention weights from the engine's own kernel, device memory: that of query head q of new token
/// t (rows of all sequences after each other) on a slot is `data[t * row_stride + q * head_stride +
/// slot]`, slots as KVCache::slots has them. Weights of dead slots and later tokens are not read.
struct GivenWeights {
  const float* data = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;
};

/// Shows them to `sink`. Queries come to a block in order, as a decoder would have shown them.
template <class Sink>
struct ObserveGiven {
  static constexpr int kThreads = 128;
  LayerView layer{};
  GivenWeights weights{};
  WeightRules rules{};
  Sink sink{};
  int group = 1;
  int spread = 1;       ///< thread blocks per (sequence, head)
  int most_blocks = 0;  ///< as Plan::most_blocks

  /// Grid: sequences * heads * spread.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = block.index() / spread;
    if (!rules.heads.contains(table % layer.head_count) || !Showing<Sink>::wants(sink, table))
      return;
    const Head& head = layer.head(table);
    if (layer.rows[table / layer.head_count].count == 0) return;
    if (most_blocks > 0 && head.blocks() > most_blocks) {
      if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
      return;
    }
    const int first = block.index() % spread * block.warps() + block.warp_index();
    for (int index = first; index < head.blocks(); index += spread * block.warps())
      show(block.warp(), table, index);
  }

 private:
  template <class Warp>
  KVAST_HD void show(const Warp& warp, int table, int index) const {
    const int slot = warp.lane();
    const Rows& rows = layer.rows[table / layer.head_count];
    kvast::Block& one = layer.head(table).block(index);
    const bool live = (one.live >> slot & 1U) != 0;
    Showing<Sink> showing(sink);
    const QueryRange shown = rules.shown(rows.count);
    for (int query = shown.first; query < shown.end; ++query) {
      Attention seen = rules.seen(layer, table, query);
      const bool sees = live && one.position[slot] <= seen.step;
      const float* row =
          weights.data + (rows.first + query) * weights.row_stride + index * kBlockTokens + slot;
      for (int member = 0; member < group && sees; ++member) {
        const int query_head = table % layer.head_count * group + member;
        seen.weight = rules.join(seen.weight, row[query_head * weights.head_stride], group);
      }
      showing(warp, one, table, index, query, slot, sees, seen);
    }
    showing.finish(warp, table, index);
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
