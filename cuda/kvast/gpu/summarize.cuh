// SPDX-License-Identifier: Apache-2.0
// summarize: one value per head from all of its tokens, for policies that have one (tier 2). As
// rank_tokens of host/rank.h does, merged in the same order.
#pragma once

#include "kvast/core/check_policy.h"
#include "kvast/core/runs.h"
#include "kvast/gpu/order.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// Memory for where the tokens of one layer's heads lie, in order of position.
struct TokenOrders {
  int* slots = nullptr;     ///< [tables, stride], overwritten; null: nobody asks
  std::int64_t stride = 0;  ///< at least the live tokens of any head

  /// Whether there is room for a head. Where lists grew since the pass was captured there may be
  /// none: then Counters::missing says so.
  template <class Block>
  KVAST_HD bool hold(const Block& block, const LayerView& layer, int table) const {
    if (slots == nullptr || layer.head(table).live() <= stride) return true;
    if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
    return false;
  }
};

/// Nothing, for policies without a Head.
template <class Policy>
struct Summaries {
  static constexpr int kThreads = 128;
  static constexpr std::size_t kSharedBytes = 0;
};

template <kvast::detail::RanksByHead Policy>
struct Summaries<Policy> {
  using Value = typename Policy::Head;
  static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) <= 256,
                "kvast OnGpu: a policy's Head must be trivially copyable, and at most 256 bytes");
  static constexpr int kThreads = Runs::kMost;
  struct Shared {
    OrderShared<kThreads> order;
    Value runs[Runs::kMost];
  };
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  const LayerView& layer;
  const Policy& policy;
  const TokenOrders& orders;

  /// Of one head, by a thread block, which all get it; a default Head where there is no token.
  template <class Block>
  KVAST_HD Value of(const Block& block, int table, int newest) const {
    auto& shared = *reinterpret_cast<Shared*>(block.shared());
    const Head& head = layer.head(table);
    int* slots = orders.slots + table * orders.stride;
    const int lane = block.warp().lane();
    in_order(block, shared.order, head, 0, head.blocks(), 0, kNoPosition, [&](int index, int rank) {
      if (rank >= 0) slots[rank] = index * kBlockTokens + lane;
    });
    block.sync();
    const auto summarized = [&](int at) {
      kvast::Block& one = head.block(slots[at] / kBlockTokens);
      const int slot = slots[at] % kBlockTokens;
      return policy.summarize(layer.token(one, table, slot, newest),
                              state_at<Policy>(layer.layout, one, slot));
    };
    const Runs runs{head.live()};
    const int run = block.thread();
    if (run < runs.count()) {
      Value part = summarized(runs.begin(run));
      for (int at = runs.begin(run) + 1; at < runs.end(run); ++at)
        part = policy.merge(part, summarized(at));
      shared.runs[run] = part;
    }
    block.sync();
    if (runs.count() == 0) return Value{};
    Value whole = shared.runs[0];
    for (int at = 1; at < runs.count(); ++at) whole = policy.merge(whole, shared.runs[at]);
    return whole;
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
