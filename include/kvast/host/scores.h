// SPDX-License-Identifier: Apache-2.0
// scores: the logits of some query rows against one block, with everything that may change or hide
// them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvast/core/attend_options.h"
#include "kvast/core/rope.h"
#include "kvast/host/reconstruct.h"

namespace kvast {

inline constexpr int kRowTile = 64;  ///< query rows handled together
inline constexpr float kHidden =
    -3.0e+38F;  ///< logit of what a query must not see, before the maximum is taken

/// Queries that attend together, per kv head: row = query * group + query head within the group.
struct QueryRows {
  const float* data = nullptr;     ///< [heads, count * group, query_width], as they meet keys and
                                   ///< multiplied by the softmax scale
  std::span<const int> positions;  ///< [count] of the sequence, ascending
  const float* sealed = nullptr;  ///< [heads, count * group, sealed_channels] the same as they meet
                                  ///< sealed keys, where these have fewer channels
  int replayed = 0;               ///< leading queries that belong to earlier passes

  int count() const { return static_cast<int>(positions.size()); }
};

/// One head as its queries see it. Built once per head and call.
struct HeadSight {
  const LayerPlan* plan = nullptr;
  const Head* head = nullptr;
  int head_index = 0;
  const float* queries = nullptr;  ///< [count * group, query_width]
  const float* sealed = nullptr;   ///< [count * group, sealed_channels], or null
  std::span<const int> positions;  ///< of the queries
  const AttendOptions* options = nullptr;
  const RopeTable* rope = nullptr;     ///< compacted positions, else null
  const RopeLevels* levels = nullptr;  ///< unrotated positions, else null
  std::span<const int> live_before{};  ///< [blocks] compacted: live tokens in the blocks before
  std::span<const int> query_rank{};   ///< [count] compacted: live tokens older than the query
  bool sees_all = false;  ///< one query, newer than every key: nothing to hide but dead slots

  int group() const { return plan->shape.group(); }
};

/// Slots of the block that a query at `position` sees.
inline std::uint32_t visible_slots(const Block& block, int position, int window) {
  const int oldest = window > 0 ? position - window : -1;
  std::uint32_t seen = 0;
  for (int slot = 0; slot < kBlockTokens; ++slot) {
    const bool visible = block.position[slot] <= position && block.position[slot] > oldest;
    seen |= static_cast<std::uint32_t>(visible) << slot;
  }
  return seen & block.live;
}

/// Live tokens of a head that each query sees, itself included, appended to `counts`. The tokens of
/// the current pass are all live, so without a sliding window its queries need no search.
inline void count_visible(const Head& head, const QueryRows& rows, int window,
                          std::vector<int>& counts) {
  const int live = head.live();
  for (int query = 0; query < rows.count(); ++query) {
    if (query >= rows.replayed && window == 0) {
      counts.push_back(live - (rows.count() - 1 - query));
      continue;
    }
    int seen = 0;
    for (int index = 0; index < head.blocks(); ++index) {
      seen += std::popcount(visible_slots(head.block(index),
                                          rows.positions[static_cast<std::size_t>(query)], window));
    }
    counts.push_back(seen);
  }
}

/// Blocks whose scores meet the softmax together: less often is a row reduced to one number.
inline constexpr int kBlocksAtOnce = 4;

/// The block that is read a turn later, where it has the same formats; else the block itself.
inline const Block& block_ahead(const Head& head, int index) {
  const int ahead = index + kBlocksAtOnce;
  return head.block(ahead < (index < head.coded.count ? head.coded.count : head.blocks()) ? ahead
                                                                                          : index);
}

namespace detail {

/// Compacted positions: each run of live slots has consecutive ranks, so the query is turned once
/// per run by the rank of the run's slot 0. A cache that evicts prefixes has one run per block, and
/// a second where sinks end.
inline void compacted_products(const HeadSight& sight, int index, const Block& block, bool coded,
                               int first_row, int rows, float* scores) {
  const int head_dim = sight.plan->shape.head_dim;
  alignas(64) float turned[512];
  alignas(64) float products[kBlockTokens];
  int rank = sight.live_before[static_cast<std::size_t>(index)];
  for (std::uint32_t left = block.live; left != 0;) {
    const int begin = std::countr_zero(left);
    const int length = std::countr_one(left >> begin);
    for (int row = 0; row < rows; ++row) {
      const int query = (first_row + row) / sight.group();
      std::copy_n(sight.queries + static_cast<std::ptrdiff_t>(first_row + row) * head_dim, head_dim,
                  turned);
      sight.rope->rotate(turned,
                         sight.query_rank[static_cast<std::size_t>(query)] - (rank - begin));
      std::fill_n(products, kBlockTokens, 0.0F);
      sight.plan->key_codec(coded).multiply(turned, head_dim, 1, head_dim, block.keys, kBlockTokens,
                                            products, kBlockTokens, block.keys, {});
      std::copy_n(products + begin, length, scores + row * kBlockTokens + begin);
    }
    rank += length;
    left = begin + length == kBlockTokens ? 0U : left & (kAllLive << (begin + length));
  }
}

/// Keys kept as they are before rotation: made once for all rows.
template <class Simd>
void reconstructed_products(const HeadSight& sight, int index, const Block& block, bool coded,
                            int first_row, int rows, float* scores) {
  const LayerPlan& plan = *sight.plan;
  const int head_dim = plan.shape.head_dim;
  alignas(64) float keys[512 * kBlockTokens];
  reconstruct_keys<Simd>(plan, sight.head_index, block, coded, *sight.levels,
                         block_ahead(*sight.head, index).keys, keys);
  const auto* tile = reinterpret_cast<const std::byte*>(keys);
  kCodec<F32, Simd>.multiply(sight.queries + static_cast<std::ptrdiff_t>(first_row) * head_dim,
                             head_dim, rows, head_dim, tile, kBlockTokens, scores, kBlockTokens,
                             tile, {});
}

template <class Simd>
void cap_logits(float softcap, int rows, float* scores) {
  using F = typename Simd::F;
  const F two_over_cap = Simd::set1(2.0F / softcap);
  for (int at = 0; at < rows * kBlockTokens; at += Simd::kLanes) {
    // tanh(x) = 1 - 2 / (e^2x + 1); e^2x is kept finite
    const F doubled = Simd::mul(Simd::load(scores + at), two_over_cap);
    const F clamped =
        Simd::sub(Simd::zero(), Simd::max(Simd::sub(Simd::zero(), doubled), Simd::set1(-80.0F)));
    const F power = exp_lanes<Simd>(clamped);
    const F tanh = Simd::sub(Simd::set1(1.0F),
                             Simd::div(Simd::set1(2.0F), Simd::add(power, Simd::set1(1.0F))));
    Simd::store(scores + at, Simd::mul(tanh, Simd::set1(softcap)));
  }
}

}  // namespace detail

/// scores[row][slot] for `rows` rows from `first_row` on, hidden slots set to kHidden, masks[row]
/// the visible slots.
template <class Simd>
void block_scores(const HeadSight& sight, int index, int first_row, int rows, float* scores,
                  std::uint32_t* masks) {
  const LayerPlan& plan = *sight.plan;
  const Block& block = sight.head->block(index);
  const bool coded = index < sight.head->coded.count;
  const AttendOptions& options = *sight.options;
  std::fill_n(scores, rows * kBlockTokens, 0.0F);
  if (sight.rope != nullptr) {
    detail::compacted_products(sight, index, block, coded, first_row, rows, scores);
  } else if (plan.reconstructs) {
    detail::reconstructed_products<Simd>(sight, index, block, coded, first_row, rows, scores);
  } else {
    const float* queries = coded && plan.prunes() ? sight.sealed : sight.queries;
    const int width = plan.key_width(coded);
    plan.key_codec(coded).multiply(queries + static_cast<std::ptrdiff_t>(first_row) * width, width,
                                   rows, width, block.keys, kBlockTokens, scores, kBlockTokens,
                                   block_ahead(*sight.head, index).keys, {});
  }
  if (options.softcap > 0.0F) detail::cap_logits<Simd>(options.softcap, rows, scores);
  int newest = 0;
  if (!sight.sees_all) {
    for (const int position : block.position) newest = std::max(newest, position);
  }
  for (int row = 0; row < rows; ++row) {
    float* line = scores + row * kBlockTokens;
    const int query = (first_row + row) / sight.group();
    const int position = sight.positions[static_cast<std::size_t>(query)];
    if (options.bias.data != nullptr) {
      const int query_head = sight.head_index * sight.group() + (first_row + row) % sight.group();
      const float* bias = options.bias.data + query_head * options.bias.head_stride;
      for (int slot = 0; slot < kBlockTokens; ++slot) line[slot] += bias[block.position[slot]];
    }
    const bool all_old = sight.sees_all || newest <= position;
    masks[row] = all_old && options.window == 0 ? block.live
                                                : visible_slots(block, position, options.window);
    if (masks[row] == kAllLive) continue;
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      if ((masks[row] >> slot & 1U) == 0) line[slot] = kHidden;
    }
  }
}

}  // namespace kvast
