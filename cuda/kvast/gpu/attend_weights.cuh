// SPDX-License-Identifier: Apache-2.0
// The weights that policies ask for: each token's part in each query's attention, one number per kv
// head. After attend, from its log-sum-exp: no matrix of queries and tokens exists.
#pragma once

#include "kvast/core/policy.h"
#include "kvast/core/sets.h"
#include "kvast/gpu/attend.cuh"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/showing.cuh"

namespace kvast::gpu {

/// Queries of each sequence, counted from its first one of the pass.
struct QueryRange {
  int first = 0;
  int end = 1 << 30;
};

/// What a policy is shown of a pass. AttendCall::options.log_sum_exp must be what attend wrote.
struct WeightRules {
  Reduce reduce = Reduce::mean;
  int newest = 0;                    ///< only this many of a sequence's newest queries; 0: all
  const int* prompt_ends = nullptr;  ///< [sequences] positions from there on are generated; or null
  const int* visible = nullptr;      ///< [tables, queries] what CountVisible wrote; null: no window
  int queries = 1;                   ///< of the sequence that has most
  QueryRange range{};                ///< others are not shown
  HeadMask heads{};                  ///< others are not shown

  KVAST_HD int first_query(int count) const { return newest > 0 ? most_of(count - newest, 0) : 0; }
  /// Queries that are shown of `count`.
  KVAST_HD QueryRange shown(int count) const {
    return {most_of(first_query(count), range.first), least_of(count, range.end)};
  }
  /// All but the weight.
  KVAST_HD Attention seen(const LayerView& layer, int table, int query) const {
    const int sequence = table / layer.head_count;
    const int count = layer.rows[sequence].count;
    Attention made{.step = layer.lengths[sequence] + query,
                   .row = query - first_query(count),
                   .after = count - 1 - query};
    made.visible = visible != nullptr ? visible[std::int64_t{table} * queries + query]
                                      : layer.head(table).live() - made.after;
    if (prompt_ends != nullptr) made.generated = most_of(made.step - prompt_ends[sequence] + 1, 0);
    return made;
  }
  /// One query head's weight joins its group's. As the CPU's reduce_weights.
  KVAST_HD float join(float before, float weight, int group) const {
    const bool none = (bits_as<std::uint32_t>(weight) & 0x7FFFFFFFU) > 0x7F800000U;
    if (reduce == Reduce::max) return none ? weight : most_of(before, weight);
    if (reduce == Reduce::sum) return before + weight;
    return before + multiply(weight, divide(1.0F, static_cast<float>(group)));
  }
};

/// A place for weights: called by all lanes of a warp together for a query and a block, lane by
/// lane for each slot. `sees` is false for slots without a live token that is not newer than the
/// query; the weight is 0 where only a window hides it. This one writes them to `to`.
struct WriteWeights {
  float* to = nullptr;
  int blocks = 0;   ///< room per table
  int queries = 1;  ///< [tables, queries, blocks, 32]

  KVAST_HD void operator()(kvast::Block&, int table, int index, int query, int slot, bool sees,
                           const Attention& seen) const {
    const std::int64_t line = (std::int64_t{table} * queries + query) * blocks + index;
    if (sees) to[line * kBlockTokens + slot] = seen.weight;
  }
};

/// Tokens that each query sees, for a sliding window.
struct CountVisible {
  static constexpr int kThreads = 128;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  AttendCall call{};
  int* visible = nullptr;  ///< [tables, queries]
  int queries = 1;

  /// Grid: tables * queries.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = block.index() / queries;
    const int query = block.index() % queries;
    const LayerView& layer = call.layer;
    const int sequence = table / layer.head_count;
    const Rows& rows = layer.rows[sequence];
    if (query >= rows.count) return;
    const Head& head = layer.head(table);
    const int last_slot = head.slots() - rows.count + query;
    const int oldest = layer.lengths[sequence] + query - call.options.window;
    int mine = 0;
    for (int index = block.warp_index(); index < head.blocks(); index += block.warps()) {
      const int slot = block.warp().lane();
      const kvast::Block& one = head.block(index);
      const bool sees = (one.live >> slot & 1U) != 0 && index * kBlockTokens + slot <= last_slot &&
                        one.position[slot] > oldest;
      mine += sees ? 1 : 0;
    }
    const int total = block_scan(block, mine, reinterpret_cast<int*>(block.shared())).total;
    if (block.thread() == 0) visible[std::int64_t{table} * queries + query] = total;
  }
};

/// Of a decode step whose softmax was saved (AttendCall::saved): a multiplication per weight, and
/// 2 bytes read per token and query head.
template <class Sink>
struct SavedWeights {
  static constexpr int kThreads = 128;
  AttendCall call{};
  WeightRules rules{};
  Sink sink{};

  /// Grid: as many as can run together.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    for (int at = block.index(); at < *call.plan.count; at += block.blocks()) {
      const WorkItem item = call.plan.items[at];
      const RowTile tile = RowTile::of(call, item.sequence, item.head, 0, call.group);
      if (tile.count == 0 || !rules.heads.contains(item.head) ||
          !Showing<Sink>::wants(sink, tile.table))
        continue;
      for (int index = item.first + block.warp_index(); index < item.end; index += block.warps())
        show(block.warp(), tile, index);
    }
  }

 private:
  template <class Warp>
  KVAST_HD void show(const Warp& warp, const RowTile& tile, int index) const {
    const SavedLogits& saved = call.saved;
    const int slot = warp.lane();
    kvast::Block& one = call.layer.head(tile.table).block(index);
    if (one.live == 0 && !Gathers<Sink>) return;
    const bool sees = (one.live >> slot & 1U) != 0;
    const int window = call.options.window;
    const bool in_window = window == 0 || one.position[slot] > tile.oldest(0, window);
    Attention seen = rules.seen(call.layer, tile.table, 0);
    if (sees && in_window) {
      const std::int64_t line = saved.line(tile.table, index);
      const float* lse = call.options.log_sum_exp +
                         std::int64_t{tile.first_row} * call.query_heads() + tile.query_head(0);
      for (int member = 0; member < call.group; ++member) {
        const float maximum = saved.maxima[line * saved.members + member];
        const unsigned below = saved.below[(line * kBlockTokens + slot) * saved.members + member];
        const float weight =
            SavedLogits::weight(below) * power_of_two(maximum - lse[member] * kLog2OfE);
        seen.weight = rules.join(seen.weight, weight, call.group);
      }
    }
    Showing<Sink> showing(sink);
    showing(warp, one, tile.table, index, 0, slot, sees, seen);
    showing.finish(warp, tile.table, index);
  }
};

/// Of any number of queries: the products with keys are made again. Queries come to a block in
/// order, as a decoder would have shown them.
template <class Kept, int kDim, class Sink>
struct AgainWeights {
  using Shape = AttendShape<Kept, kDim, kTileRows>;
  static constexpr int kThreads = Shape::kWarps * kWarp;
  AttendCall call{};
  WeightRules rules{};
  Sink sink{};

  /// Grid: as many as can run together.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    for (int at = block.index(); at < *call.plan.count; at += block.blocks()) {
      const WorkItem item = call.plan.items[at];
      for (int first = item.first; first < item.end; first += Shape::kWarps)
        show(block, item, first);
    }
  }

 private:
  using Products = typename Shape::Products;
  using Loaded = TileQueries<Shape, kDim>;
  /// In a warp's ring, behind keys: the weights of a tile.
  static constexpr int kPanelAt = most_of(Shape::Dense::kSlotBytes, Shape::Coded::kSlotBytes);
  static_assert(Shape::kRingBytes - kPanelAt >= kBlockTokens * kTileRows * 4);

  /// A block to each warp.
  template <class Block>
  KVAST_HD void show(const Block& block, const WorkItem& item, int first) const {
    const auto warp = block.warp();
    const int index = first + block.warp_index();
    const bool exists = index < item.end;
    const RowTile whole = RowTile::of(call, item.sequence, item.head, 0, 1 << 30);
    if (whole.count == 0 || !rules.heads.contains(item.head) ||
        !Showing<Sink>::wants(sink, whole.table))
      return;
    std::byte* keys = block.shared() + block.warp_index() * Shape::kRingBytes;
    block.sync();  // queries and rings are free
    kvast::Block* one = nullptr;
    bool coded = false;
    int before = 0;
    if (exists) {
      const Head& head = call.layer.head(whole.table);
      one = &head.block(index);
      coded = index < head.coded.count;
      if (Loaded::turn(call)) before = live_before(warp, head, index);
      if (coded) {
        Shape::Coded::copy_keys(block, call.layer, one->keys, keys);
      } else {
        Shape::Dense::copy_keys(block, call.layer, one->keys, keys);
      }
    }
    block.commit_copies();
    block.template wait_copies<0>();
    // no block of these is seen by queries before this one
    const QueryRange shown = rules.shown(whole.last_query() + 1);
    const int seen_from = most_of(shown.first, first * kBlockTokens - whole.first_slot);
    const int end = shown.end * call.group;
    Showing<Sink> showing(sink);
    float weight = 0.0F;
    for (int row = seen_from * call.group; row < end; row += kTileRows) {
      RowTile tile = whole;
      tile.first = row;
      tile.count = least_of(end - row, kTileRows);
      block.sync();
      Loaded::load(block, call, tile);
      block.sync();
      if (!exists) continue;
      float scores[Products::kTiles][kTileScores];
      if (coded) {
        Loaded::template scores<typename Shape::Coded>(block, call, tile, one->live, before, keys,
                                                       scores);
      } else {
        Loaded::template scores<typename Shape::Dense>(block, call, tile, one->live, before, keys,
                                                       scores);
      }
      weigh(block, tile, *one, index, scores, reinterpret_cast<float*>(keys + kPanelAt), weight,
            showing);
    }
    if (exists) showing.finish(warp, whole.table, index);
  }

  template <class Warp>
  KVAST_HD static int live_before(const Warp& warp, const Head& head, int index) {
    int live = 0;
    for (int at = warp.lane(); at < index; at += kWarp) live += head.block(at).live_count();
    return warp_sum(warp, live);
  }

  /// `weight`: of this lane's slot, over the members that earlier tiles had of the same query.
  template <class Block>
  KVAST_HD void weigh(const Block& block, const RowTile& tile, kvast::Block& one, int index,
                      float (&scores)[Products::kTiles][kTileScores], float* panel, float& weight,
                      Showing<Sink>& showing) const {
    const auto warp = block.warp();
    const int slot = warp.lane();
    typename Loaded::Factors factors;
    Loaded::load_factors(block, call, factors);
    finish_logits(slot, call, tile, one.live, one.position, factors, scores);
    for (int row = 0; row < 2; ++row) {
      for (int at = 0; at < 4; ++at)
        panel[row_of(slot, row) * kBlockTokens + token_of(slot, at)] = scores[0][2 * at + row];
    }
    warp.sync();
    for (int row = 0; row < tile.count; ++row) {
      const int query = tile.query(row);
      const int member = (tile.first + row) % call.group;
      const int query_head = tile.query_head(row);
      const bool sees =
          (one.live >> slot & 1U) != 0 && index * kBlockTokens + slot <= tile.last_slot(query);
      const int window = call.options.window;
      const bool in_window = window == 0 || one.position[slot] > tile.oldest(query, window);
      const float lse =
          call.options
              .log_sum_exp[std::int64_t{tile.tensor_row(row)} * call.query_heads() + query_head];
      const float here = sees && in_window
                             ? power_of_two(panel[row * kBlockTokens + slot] - lse * kLog2OfE)
                             : 0.0F;
      weight = rules.join(member == 0 ? 0.0F : weight, here, call.group);
      if (member + 1 < call.group) continue;
      Attention seen = rules.seen(call.layer, tile.table, query);
      seen.weight = weight;
      showing(warp, one, tile.table, index, query, slot, sees, seen);
    }
    warp.sync();  // the panel is free
  }
};

}  // namespace kvast::gpu
