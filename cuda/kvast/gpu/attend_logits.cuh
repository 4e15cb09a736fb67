// SPDX-License-Identifier: Apache-2.0
// From products of queries and keys to logits: what both passes over a block have in common.
#pragma once

#include "kvast/gpu/attend_queries.cuh"

namespace kvast::gpu {

/// Scale, cap and bias. `live` and `positions` are those of the block, `factors` those of the
/// lane's rows (LogitRules::logit).
template <int kTiles>
KVAST_HD void finish_logits(int lane, const AttendCall& call, const RowTile& tile,
                            std::uint32_t live, const int* positions,
                            const float (&factors)[2 * kTiles],
                            float (&scores)[kTiles][kTileScores]) {
  for (int of_tile = 0; of_tile < kTiles; ++of_tile) {
    for (int at = 0; at < kTileScores; ++at)
      scores[of_tile][at] = call.rules.logit(scores[of_tile][at], factors[2 * of_tile + at % 2]);
  }
  const Bias& bias = call.options.bias;
  if (bias.data == nullptr) return;
  for (int row = 0; row < 2 * kTiles; ++row) {
    const float* line = bias.data + tile.sequence * bias.sequence_stride +
                        tile.query_head(row_of(lane, row)) * bias.head_stride;
    for (int at = 0; at < 4; ++at) {
      const int token = token_of(lane, at);
      if ((live >> token & 1U) != 0)
        scores[row / 2][2 * at + row % 2] += line[positions[token]] * kLog2OfE;
    }
  }
}

/// Keys rotated by their slot: a run of live tokens has consecutive ranks, so the queries are
/// turned once per run, by their distance to the token that would stand in the run's slot 0.
/// `before`: live tokens in the blocks before; `turned`: room for a warp's queries.
template <class Products, class Queries, class Warp>
KVAST_HD void turned_scores(const Warp& warp, const AttendCall& call, const RowTile& tile,
                            std::uint32_t live, int before, const std::byte* keys, const float* raw,
                            std::byte* turned, float (&scores)[Products::kTiles][kTileScores]) {
  const int lane = warp.lane();
  for (auto& of_tile : scores) {
    for (float& score : of_tile) score = 0.0F;
  }
  const int newest = call.layer.head(tile.table).dense.live - 1;
  const int last_query = call.layer.rows[tile.sequence].count - 1;
  int rank = before;
  for (std::uint32_t left = live; left != 0;) {
    const int begin = lowest_bit(left);
    const int end = begin + lowest_bit(~(left >> begin));
    const int base = rank - begin;
    Queries::turn(
        warp, call.rope, raw, tile.count,
        [&](int row) { return newest - (last_query - tile.query(row)) - base; }, turned);
    float products[Products::kTiles][kTileScores];
    Products::scores(warp, keys, turned, products);
    warp.sync();  // `turned` is free
    for (int of_tile = 0; of_tile < Products::kTiles; ++of_tile) {
      for (int at = 0; at < kTileScores; ++at) {
        const int token = token_of(lane, at / 2);
        if (token >= begin && token < end) scores[of_tile][at] = products[of_tile][at];
      }
    }
    rank += end - begin;
    left = end == kBlockTokens ? 0U : left & (kAllLive << end);
  }
}

}  // namespace kvast::gpu
