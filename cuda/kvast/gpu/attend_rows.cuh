// SPDX-License-Identifier: Apache-2.0
// What the kernels of attention are given, and which query rows a unit of their work has.
#pragma once

#include "kvast/core/rope.h"
#include "kvast/gpu/attend_options.h"
#include "kvast/gpu/attend_softmax.cuh"
#include "kvast/gpu/attend_walk.cuh"
#include "kvast/gpu/plan.cuh"
#include "kvast/gpu/rotate.cuh"
#include "kvast/gpu/tensor.h"

namespace kvast::gpu {

/// Results of ranges of blocks, before their ranges are joined. A unit is a work item's tile of
/// rows: `item * tiles + tile`.
struct Partials {
  float* outputs = nullptr;  ///< [units, tile's rows, value_dim], not yet divided by sums
  float* maxima = nullptr;   ///< [units, tile's rows], in powers of two
  float* sums = nullptr;     ///< [units, tile's rows]
};

/// What the softmax of a decode step computed, kept for the policies' weights: of each block
/// [32 tokens, members] steps of 2^-9 below the maximum so far, and that maximum.
struct SavedLogits {
  static constexpr float kSteps = 512.0F;        ///< to a power of two
  static constexpr unsigned kNothing = 0xFFFFU;  ///< a hidden token
  std::uint16_t* below = nullptr;                ///< [tables, blocks, 32, members]; null: not kept
  float* maxima = nullptr;                       ///< [tables, blocks, members]
  int blocks = 0;                                ///< room per table
  int members = 0;                               ///< query heads of a group, rounded up to even

  KVAST_HD std::int64_t line(int table, int block) const {
    return std::int64_t{table} * blocks + block;
  }
  /// Of a weight relative to the maximum so far. (The logarithm keeps all magnitudes alike to 7e-4
  /// in the 16 bits that a half would spend on those near 1.)
  KVAST_HD static unsigned steps(float weight) {
    if (!(weight > 0.0F)) return kNothing;
    return static_cast<unsigned>(least_of(0.5F - log_of_two(weight) * kSteps, 65534.0F));
  }
  KVAST_HD static float weight(unsigned steps) {
    return steps == kNothing ? 0.0F : power_of_two(static_cast<float>(steps) / -kSteps);
  }
};

/// Queries that are turned to meet keys stored rotated by their slot (compacted positions).
struct QueryRope {
  const float* frequencies = nullptr;  ///< [width / 2] device memory; null: no rotation
  int width = 0;
  Pairing pairing = Pairing::halves;
  float scale = 1.0F;
};

struct AttendCall {
  LayerView layer{};
  PlanView plan{};
  Tensor queries{};       ///< [rows, query heads, head_dim], strides filled in
  OutputTensor output{};  ///< [rows, query heads, value_dim]; null data: not wanted
  AttendOptions options{};
  LogitRules rules{};
  QueryRope rope{};
  Partials partials{};
  SavedLogits saved{};
  int group = 1;
  int tiles = 1;        ///< of the rows of the head that has most
  int dense_cost = 1;   ///< SplitRules::dense_cost
  int most_blocks = 0;  ///< Plan::most_blocks

  KVAST_HD int query_heads() const { return layer.head_count * group; }
  /// Of a row whose weights, relative to `maximum`, have this sum: what makes them shares of 1.
  /// Also writes the log-sum-exp, if `writes`.
  KVAST_HD float share(int row, int query_head, float maximum, float sum, bool writes) const {
    float most = maximum;
    if (options.sinks != nullptr) {
      const float sink = options.sinks[query_head] * kLog2OfE;
      most = most_of(maximum, sink);
      sum = sum * power_of_two(maximum - most) + power_of_two(sink - most);
    }
    if (writes && options.log_sum_exp != nullptr) {
      options.log_sum_exp[std::int64_t{row} * query_heads() + query_head] =
          sum > 0.0F ? (most + log_of_two(sum)) * kLogOf2 : kHiddenLogit;
    }
    return sum > 0.0F ? power_of_two(maximum - most) / sum : 0.0F;
  }
  /// The output of a row of a tile, by a warp: `total` are its values by weights relative to
  /// `maximum`, in the basis that they are kept in.
  template <class Warp, class Tile, int kCount>
  KVAST_HD void write_row(const Warp& warp, const Tile& tile, int row, float maximum, float sum,
                          LaneVector<kCount>& total) const {
    const int query_head = tile.query_head(row);
    const int tensor_row = tile.tensor_row(row);
    const float share = this->share(tensor_row, query_head, maximum, sum, warp.lane() == 0);
    if (output.data == nullptr) return;
    if (layer.value_rotation.dim != 0) total.undo(warp, layer.value_rotation);
    const std::int64_t to = output.at(tensor_row, query_head);
    total.each(warp.lane(), layer.value_dim,
               [&](int dim, float number) { write_number(output, to + dim, number * share); });
  }
};

/// Rows [first, first + count) of one head's queries: row = query * group + member.
struct RowTile {
  int table = 0;
  int sequence = 0;
  int head = 0;
  int first = 0;
  int count = 0;
  int group = 1;
  int first_row = 0;       ///< of the caller's tensors: the sequence's first query
  int first_slot = 0;      ///< where the tokens of the pass begin in the head's blocks
  int first_position = 0;  ///< of the sequence's first query

  /// `rows` to a tile. No rows where the sequence has none left for this tile.
  KVAST_HD static RowTile of(const AttendCall& call, int sequence, int head, int tile, int rows) {
    const Rows& queries = call.layer.rows[sequence];
    RowTile made{.table = sequence * call.layer.head_count + head,
                 .sequence = sequence,
                 .head = head,
                 .first = tile * rows,
                 .group = call.group,
                 .first_row = queries.first,
                 .first_position = call.layer.lengths[sequence]};
    made.count = most_of(least_of(queries.count * call.group - made.first, rows), 0);
    if (made.count > 0) made.first_slot = call.layer.head(made.table).slots() - queries.count;
    return made;
  }

  KVAST_HD int query(int row) const { return (first + row) / group; }
  KVAST_HD int query_head(int row) const { return head * group + (first + row) % group; }
  KVAST_HD int last_query() const { return query(count - 1); }
  KVAST_HD int tensor_row(int row) const { return first_row + query(row); }
  /// Tokens of the pass arrived in order, at the tail: a query sees slots up to its own.
  KVAST_HD int last_slot(int query) const { return first_slot + query; }
  KVAST_HD int blocks_seen() const { return last_slot(last_query()) / kBlockTokens + 1; }
  /// Positions above it are in a window's sight.
  KVAST_HD int oldest(int query, int window) const { return first_position + query - window; }
  KVAST_HD Horizon horizon(int window) const {
    if (window <= 0) return {};
    return {.oldest_first = oldest(query(0), window), .oldest_last = oldest(last_query(), window)};
  }
};

}  // namespace kvast::gpu
