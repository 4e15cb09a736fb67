// SPDX-License-Identifier: Apache-2.0
// attend: softmax(q k) v over the blocks of a layer, for all sequences and heads in one launch. The
// planner's work items are ranges of blocks of one head, coded ones first; its query rows, a tile
// at a time, share each block that is read.
//
// A warp works alone: it has a part of the range, copies that run ahead of it in a ring of tiles of
// its own, and its own softmax; the block's warps meet only to join what each came to. So no
// barrier stands between memory and arithmetic, and what a processor waits for is bytes.
//
// Dense keys lie as values do, [32 tokens][features]: then a row is a token as it arrived,
// appending and moving a token are copies of whole lines, and both products load their fragments by
// ldmatrix, values turned on the way. Codes lie as fragments (fragments.h). Both leave scores and
// sums in the same places, so a warp goes from codes to what waits behind them with one softmax.
#pragma once

#include "kvast/gpu/attend_load.cuh"

namespace kvast::gpu {

/// `Kept` is the format of dense blocks, or Codes.
template <class Kept, int kDim, int kRows>
struct Attend {
  using Shape = AttendShape<Kept, kDim, kRows>;
  static constexpr int kThreads = Shape::kWarps * kWarp;
  AttendCall call{};

  /// Grid: as many as can run together; each takes every so manieth unit.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const std::int64_t units = std::int64_t{*call.plan.count} * call.tiles;
    for (std::int64_t unit = block.index(); unit < units; unit += block.blocks()) run(block, unit);
  }

 private:
  using Products = typename Shape::Products;
  using Loaded = TileQueries<Shape, kDim>;
  using States = RowStates<Products::kTiles>;
  using Scores = float[Products::kTiles][kTileScores];
  using Sums = float[Products::kTiles][Shape::kSums];
  using Factors = typename Loaded::Factors;

  template <class Block>
  KVAST_HD void run(const Block& block, std::int64_t unit) const {
    const WorkItem item = call.plan.items[unit / call.tiles];
    const RowTile tile =
        RowTile::of(call, item.sequence, item.head, static_cast<int>(unit % call.tiles), kRows);
    if (tile.count == 0) return;
    const int end = least_of(item.end, tile.blocks_seen());
    const int length = most_of(end - item.first, 0);
    Loaded::load(block, call, tile);
    block.sync();
    States states;
    Sums sums;
    for (auto& of_tile : sums) {
      for (float& sum : of_tile) sum = 0.0F;
    }
    const Head& head = call.layer.head(tile.table);
    const BlockCosts costs{.coded = head.coded.count, .dense_cost = call.dense_cost};
    const int cost = costs.cost(item.first);
    const auto begin_of = [&](int warp) {
      return costs.blocks(cost +
                          part_begin(costs.cost(item.first + length) - cost, Shape::kWarps, warp));
    };
    const int first = begin_of(block.warp_index());
    const int last = begin_of(block.warp_index() + 1);
    if constexpr (Shape::kCodes) {
      if (first < costs.coded)
        read<typename Shape::Coded>(block, tile, first, least_of(last, costs.coded), states, sums);
    }
    read<typename Shape::Dense>(block, tile, most_of(first, costs.coded), last, states, sums);
    states.finish(block.warp());
    block.sync();  // the rings are free
    show(block, states, sums);
    block.sync();
    join(block, item, tile, unit);
  }

  /// Blocks [first, end) of one kind, by one warp.
  template <class Reading, class Block>
  KVAST_HD void read(const Block& block, const RowTile& tile, int first, int end, States& states,
                     Sums& sums) const {
    const auto warp = block.warp();
    const int at = block.warp_index();
    std::byte* shared = block.shared();
    std::byte* scratch = shared + Shape::kScratchAt + at * Products::kScratchBytes;
    Factors factors;
    Loaded::load_factors(block, call, factors);
    Stream<Reading, Block> stream(
        block, call.layer,
        Walk(warp, call.layer.head(tile.table), first, end, tile.horizon(call.options.window),
             Loaded::turn(call)),
        shared + at * Shape::kRingBytes,
        reinterpret_cast<Visit*>(shared + Shape::kVisitsAt) + Shape::kVisits * at,
        call.options.window > 0 || call.options.bias.data != nullptr);
    typename Reading::Products products;
    const int whole = (tile.last_slot(tile.query(0)) + 1) / kBlockTokens;
    for (int visited = 0; stream.more(visited); ++visited) {
      const std::byte* keys = stream.wait();
      const Visit& visit = stream.visit(visited);
      Scores scores;
      Loaded::template scores<Reading>(block, call, tile, visit.live, visit.before, keys, scores);
      stream.release();
      soften(warp, tile, visit, whole, factors, scores, states, sums);
      const std::byte* values = stream.wait();
      products.add(warp, values, visit.live, scores, scratch, sums);
      stream.release();
    }
    products.finish(warp, sums);
  }

  /// `whole`: blocks that are older than every query.
  template <class Warp>
  KVAST_HD void soften(const Warp& warp, const RowTile& tile, const Visit& visit, int whole,
                       const Factors& factors, Scores& scores, States& states, Sums& sums) const {
    const int lane = warp.lane();
    const int base = visit.index * kBlockTokens;
    finish_logits(lane, call, tile, visit.live, visit.positions, factors, scores);
    const bool aged = visit.aged != 0;
    if (!aged && visit.live == kAllLive && visit.index < whole) {
      states.soften(warp, scores, sums, [](int, int) { return true; });
    } else {
      std::uint32_t seen[States::kMine];  // a bit for each of this lane's tokens
      for (int row = 0; row < States::kMine; ++row) {
        const int query = tile.query(row_of(lane, row));
        const int oldest = tile.oldest(query, call.options.window);
        seen[row] = 0;
        for (int at = 0; at < 4; ++at) {
          const int token = token_of(lane, at);
          const bool sees = (visit.live >> token & 1U) != 0 &&
                            base + token <= tile.last_slot(query) &&
                            (!aged || visit.positions[token] > oldest);
          seen[row] |= static_cast<std::uint32_t>(sees) << at;
        }
      }
      states.soften(warp, scores, sums,
                    [&seen](int row, int token) { return (seen[row] >> token & 1U) != 0; });
    }
    if (call.saved.below != nullptr) save(lane, tile, visit, scores, states);
  }

  /// Of a sequence's only query.
  KVAST_HD void save(int lane, const RowTile& tile, const Visit& visit, const Scores& weights,
                     const States& states) const {
    const SavedLogits& saved = call.saved;
    const std::int64_t line = saved.line(tile.table, visit.index);
    for (int row = 0; row < States::kMine; row += 2) {
      const int member = tile.first + row_of(lane, row);
      if (row_of(lane, row) >= tile.count) continue;
      for (int at = 0; at < 4; ++at) {
        const float* pair = weights[row / 2] + 2 * at;
        auto* to = reinterpret_cast<std::uint32_t*>(
            saved.below + (line * kBlockTokens + token_of(lane, at)) * saved.members + member);
        *to = SavedLogits::steps(pair[0]) | SavedLogits::steps(pair[1]) << 16U;
      }
      if (lane >= 4) continue;
      saved.maxima[line * saved.members + member] = states.maximum[row];
      saved.maxima[line * saved.members + member + 1] = states.maximum[row + 1];
    }
  }

  /// A warp's results where all can read them.
  template <class Block>
  KVAST_HD void show(const Block& block, const States& states, const Sums& sums) const {
    const int lane = block.warp().lane();
    const int first = block.warp_index() * kRows;
    float* to = reinterpret_cast<float*>(block.shared());
    float* stats = reinterpret_cast<float*>(block.shared() + Shape::kStatesAt);
    for (int row = 0; row < States::kMine; ++row) {
      const int at = first + row_of(lane, row);
      for (int index = row % 2; index < kDim / 4; index += 2)
        to[at * Shape::kSumStride + Products::dim_of(lane, index)] = sums[row / 2][index];
      if (lane < 4) {
        stats[2 * at] = states.maximum[row];
        stats[2 * at + 1] = states.sum[row];
      }
    }
  }

  /// The warps' results become one, in order; a row to each warp.
  template <class Block>
  KVAST_HD void join(const Block& block, const WorkItem& item, const RowTile& tile,
                     std::int64_t unit) const {
    const auto warp = block.warp();
    const float* sums = reinterpret_cast<const float*>(block.shared());
    const float* stats = reinterpret_cast<const float*>(block.shared() + Shape::kStatesAt);
    const int columns = call.layer.value_dim;
    for (int row = block.warp_index(); row < tile.count; row += block.warps()) {
      float maximum = kHiddenLogit;
      for (int of = 0; of < Shape::kWarps; ++of)
        maximum = most_of(maximum, stats[2 * (of * kRows + row)]);
      float sum = 0.0F;
      LaneVector<kDim / kWarp> total;
      for (int of = 0; of < Shape::kWarps; ++of) {
        const int from = of * kRows + row;
        const float factor = power_of_two(stats[2 * from] - maximum);
        sum += stats[2 * from + 1] * factor;
        total.each(warp.lane(), columns, [&](int dim, float& number) {
          number += sums[from * Shape::kSumStride + dim] * factor;
        });
      }
      if (item.parts > 1) {
        const std::int64_t to = unit * kRows + row;
        total.each(warp.lane(), columns, [&](int dim, float number) {
          call.partials.outputs[to * columns + dim] = number;
        });
        if (warp.lane() != 0) continue;
        call.partials.maxima[to] = maximum;
        call.partials.sums[to] = sum;
      } else {
        call.write_row(warp, tile, row, maximum, sum, total);
      }
    }
  }
};

}  // namespace kvast::gpu
