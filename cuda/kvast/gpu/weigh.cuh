// SPDX-License-Identifier: Apache-2.0
// weigh: a policy gives each weight a new value, which is divided by the sum over the query's row
// (Keyformer). As host/learn.h does, with sums in another order.
#pragma once

#include "kvast/gpu/profile.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// Sums of new weights, of a range of queries: by block, and of whole rows.
struct WeighedSums {
  double* parts = nullptr;  ///< [tables, queries, blocks]; zeroes where no block is seen
  double* rows = nullptr;   ///< [tables, queries]
  int first = 0;            ///< query
  int queries = 1;
  int blocks = 0;  ///< room per row

  KVAST_HD std::int64_t row(int table, int query) const {
    return std::int64_t{table} * queries + (query - first);
  }
};

/// What two places for weights (attend_weights.cuh) share: the new weight of a token.
template <class Policy>
struct WeighTokens {
  LayerView layer{};
  Policy policy{};

  KVAST_HD float operator()(kvast::Block& block, int table, int slot, const Attention& seen) const {
    const int newest = layer.newest(table / layer.head_count);
    return policy.weigh(layer.token(block, table, slot, newest), seen);
  }
};

/// The first: sums by block.
template <class Policy>
struct SumWeighed {
  WeighTokens<Policy> weigh{};
  WeighedSums sums{};

  template <class Warp>
  KVAST_HD void operator()(const Warp& warp, kvast::Block& block, int table, int index, int query,
                           int slot, bool sees, const Attention& seen) const {
    const double mine = sees ? static_cast<double>(weigh(block, table, slot, seen)) : 0.0;
    const double sum =
        warp_merge(warp, mine, [](double left, double right) { return left + right; });
    if (slot == 0) sums.parts[sums.row(table, query) * sums.blocks + index] = sum;
  }
};

/// The second, once rows are summed: states observe quotients.
template <class Policy>
struct ObserveWeighed {
  WeighTokens<Policy> weigh{};
  WeighedSums sums{};

  KVAST_HD void operator()(kvast::Block& block, int table, int, int query, int slot, bool sees,
                           Attention seen) const {
    if (!sees) return;
    const double sum = sums.rows[sums.row(table, query)];
    const float weight = weigh(block, table, slot, seen);
    seen.weight = sum > 0.0 ? static_cast<float>(static_cast<double>(weight) / sum) : 0.0F;
    weigh.policy.observe(state_at<Policy>(weigh.layer.layout, block, slot), seen);
  }
};

/// Between them: each row's sum.
struct SumRows {
  static constexpr int kThreads = 128;
  WeighedSums sums{};
  int tables = 1;

  /// Grid: a warp to each row.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    const std::int64_t row = std::int64_t{block.index()} * block.warps() + block.warp_index();
    if (row >= std::int64_t{tables} * sums.queries) return;
    double mine = 0.0;
    for (int index = warp.lane(); index < sums.blocks; index += kWarp)
      mine += sums.parts[row * sums.blocks + index];
    const double sum =
        warp_merge(warp, mine, [](double left, double right) { return left + right; });
    if (warp.lane() == 0) sums.rows[row] = sum;
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
