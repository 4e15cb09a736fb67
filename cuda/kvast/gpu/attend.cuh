// SPDX-License-Identifier: Apache-2.0
// attend: softmax(q k) v over the dense blocks of a layer, for all sequences and heads in one
// launch. The planner's work items are ranges of blocks of one head; its query rows, a tile at a
// time, share each block that is read.
//
// A warp works alone: it has a part of the range, copies that run ahead of it in a ring of tiles of
// its own, and its own softmax; the block's warps meet only to join what each came to. So no
// barrier stands between memory and arithmetic, and what a processor waits for is bytes.
//
// Keys lie as values do, [32 tokens][features]: then a row is a token as it arrived, appending and
// moving a token are copies of whole lines, and both products load their fragments by ldmatrix,
// values turned on the way.
#pragma once

#include <type_traits>

#include "kvast/gpu/attend_logits.cuh"

namespace kvast::gpu {

/// What a warp remembers of a block whose tiles are in its ring, or on their way there.
struct alignas(16) Visit {
  std::uint32_t live;
  int index;
  int before;
  int aged;
  int positions[kBlockTokens];
};

/// How attention uses a thread block: memory that lets copies run ahead, and what is left for
/// several blocks to share a processor.
template <class Format, int kDim, int kRows>
struct AttendShape {
  using Tile = SharedRows<typename Format::Element, kDim>;
  using Products = std::conditional_t<std::is_same_v<Format, F32>, FmaProducts<kDim>,
                                      MmaProducts<Format, kDim, kRows>>;
  using Queries = QueryRows<Format, kDim, kRows>;
  static_assert(kRows == Products::kTiles * kTileRows);
  static constexpr int kWarps = Tile::kTileBytes <= 8192 ? 4 : 2;
  static constexpr int kRing = Tile::kTileBytes <= 16384 ? 3 : 2;  ///< tiles of keys or values
  static constexpr int kSumStride = kDim + 4;                      ///< avoids conflicts of banks

  static constexpr int kScratchAt = kWarps * kRing * Tile::kTileBytes;
  static constexpr int kVisitsAt = kScratchAt + kWarps * Products::kScratchBytes;
  static constexpr int kStatesAt = kVisitsAt + kWarps * 2 * static_cast<int>(sizeof(Visit));
  static constexpr int kQueriesAt = kStatesAt + kWarps * kRows * 2 * 4;
  static_assert(kWarps * kRows * kSumStride * 4 <= kScratchAt);

  static constexpr std::size_t shared_bytes(bool turns) {
    return static_cast<std::size_t>(kQueriesAt + (turns ? kWarps : 1) * Queries::kBytes +
                                    (turns ? Queries::kRawBytes : 0));
  }
  /// Thread blocks that a processor of 227 KiB has room for.
  static constexpr int per_processor(bool turns) {
    return clamped(static_cast<int>((std::size_t{227} << 10U) / (shared_bytes(turns) + 1024)), 1,
                   16 / kWarps);
  }
};

template <class Format, int kDim, int kRows>
struct Attend {
  using Shape = AttendShape<Format, kDim, kRows>;
  static constexpr int kThreads = Shape::kWarps * kWarp;
  AttendCall call{};

  /// Grid: as many as can run together; each takes every so manieth unit.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int units = *call.plan.count * call.tiles;
    for (int unit = block.index(); unit < units; unit += block.blocks()) run(block, unit);
  }

 private:
  using Products = typename Shape::Products;
  using Queries = typename Shape::Queries;
  using Tile = typename Shape::Tile;
  using States = RowStates<Products::kTiles>;
  using Scores = float[Products::kTiles][kTileScores];
  using Sums = float[Products::kTiles][kDim / 4];

  /// The ring of one warp: tiles of keys and of values take turns.
  template <class Block>
  struct Stream {
    const Block& block;
    const LayerView& layer;
    Walk walk;
    std::byte* ring;
    Visit* visits;  ///< of two blocks
    bool copies_positions;
    int issued = 0;  ///< blocks whose keys were asked for
    int write_at = 0;
    int read_at = 0;
    bool keys_next = true;
    const std::byte* values = nullptr;

    /// Starts the copy of the next tile, if there is one.
    KVAST_HD void issue() {
      std::byte* to = ring + write_at * Tile::kTileBytes;
      write_at = write_at + 1 == Shape::kRing ? 0 : write_at + 1;
      if (keys_next) {
        Found found;
        values = nullptr;
        if (walk.next(block.warp(), found)) {
          values = found.values;
          announce(found);
          Tile::copy(block, found.keys, layer.dense_key_bytes, to);
        }
      } else if (values != nullptr) {
        Tile::copy(block, values, layer.dense_value_bytes, to);
      }
      keys_next = !keys_next;
      block.commit_copies();
    }
    /// The tile whose turn it is, once it is there.
    KVAST_HD const std::byte* wait() {
      block.template wait_copies<Shape::kRing - 1>();
      block.warp().sync();
      const std::byte* tile = ring + read_at * Tile::kTileBytes;
      read_at = read_at + 1 == Shape::kRing ? 0 : read_at + 1;
      return tile;
    }
    /// Once all lanes are through with the oldest tile.
    KVAST_HD void release() {
      block.warp().sync();
      issue();
    }

   private:
    KVAST_HD void announce(const Found& found) {
      Visit& visit = visits[issued++ % 2];
      const int lane = block.warp().lane();
      if (lane == 0) {
        visit.live = found.live;
        visit.index = found.index;
        visit.before = found.before;
        visit.aged = found.aged ? 1 : 0;
      }
      if (copies_positions && lane < kBlockTokens / 2)
        block.template copy_async<8>(visit.positions + 2 * lane, found.record->position + 2 * lane);
    }
  };

  template <class Block>
  KVAST_HD void run(const Block& block, int unit) const {
    const WorkItem item = call.plan.items[unit / call.tiles];
    const RowTile tile = RowTile::of(call, item.sequence, item.head, unit % call.tiles, kRows);
    if (tile.count == 0) return;
    const int end = least_of(item.end, tile.blocks_seen());
    const int length = most_of(end - item.first, 0);
    load_queries(block, tile);
    block.sync();
    States states;
    Sums sums;
    for (auto& of_tile : sums) {
      for (float& sum : of_tile) sum = 0.0F;
    }
    const int warp = block.warp_index();
    read(block, tile, item.first + part_begin(length, Shape::kWarps, warp),
         item.first + part_begin(length, Shape::kWarps, warp + 1), states, sums);
    block.sync();  // the rings are free
    show(block, states, sums);
    block.sync();
    join(block, item, tile, unit);
  }

  template <class Block>
  KVAST_HD void load_queries(const Block& block, const RowTile& tile) const {
    if (turns()) {
      float* raw = raw_queries(block);
      Queries::load(block, call, tile,
                    [raw](int row, int dim, float number) { raw[row * kDim + dim] = number; });
    } else {
      std::byte* to = block.shared() + Shape::kQueriesAt;
      Queries::load(block, call, tile,
                    [to](int row, int dim, float number) { Queries::store(to, row, dim, number); });
    }
  }

  /// Blocks [first, end), by one warp.
  template <class Block>
  KVAST_HD void read(const Block& block, const RowTile& tile, int first, int end, States& states,
                     Sums& sums) const {
    const auto warp = block.warp();
    const int at = block.warp_index();
    std::byte* shared = block.shared();
    const BlockList& list = call.layer.head(tile.table).dense;
    std::byte* scratch = shared + Shape::kScratchAt + at * Products::kScratchBytes;
    Stream<Block> stream{
        .block = block,
        .layer = call.layer,
        .walk = Walk(warp, list, first, end, tile.horizon(call.options.window), turns()),
        .ring = shared + at * Shape::kRing * Tile::kTileBytes,
        .visits = reinterpret_cast<Visit*>(shared + Shape::kVisitsAt) + 2 * at,
        .copies_positions = call.options.window > 0 || call.options.bias.data != nullptr};
    for (int ahead = 0; ahead < Shape::kRing; ++ahead) stream.issue();
    for (int visited = 0; visited < stream.issued; ++visited) {
      const std::byte* keys = stream.wait();
      const Visit& visit = stream.visits[visited % 2];
      Scores scores;
      if (turns()) {
        turned_scores<Products, Queries>(warp, call, tile, visit.live, visit.before, keys,
                                         raw_queries(block),
                                         shared + Shape::kQueriesAt + at * Queries::kBytes, scores);
      } else {
        Products::scores(warp, keys, shared + Shape::kQueriesAt, scores);
      }
      stream.release();
      soften(warp, tile, visit, scores, states, sums);
      Products::keep_weights(warp, scores, scratch);
      const std::byte* values = stream.wait();
      Products::add(warp, values, scratch, sums);
      stream.release();
    }
    states.finish(warp);
  }

  template <class Warp>
  KVAST_HD void soften(const Warp& warp, const RowTile& tile, const Visit& visit, Scores& scores,
                       States& states, Sums& sums) const {
    const int lane = warp.lane();
    const int base = visit.index * kBlockTokens;
    finish_logits(lane, call, tile, visit.live, visit.positions, scores);
    const bool aged = visit.aged != 0;
    if (!aged && visit.live == kAllLive &&
        base + kBlockTokens - 1 <= tile.last_slot(tile.query(0))) {
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

  /// The warps' results become one, in order.
  template <class Block>
  KVAST_HD void join(const Block& block, const WorkItem& item, const RowTile& tile,
                     int unit) const {
    const float* sums = reinterpret_cast<const float*>(block.shared());
    const float* stats = reinterpret_cast<const float*>(block.shared() + Shape::kStatesAt);
    const int columns = call.layer.value_dim;
    for (int at = block.thread(); at < tile.count * columns; at += block.threads()) {
      const int row = at / columns;
      const int dim = at % columns;
      float maximum = kHiddenLogit;
      for (int warp = 0; warp < Shape::kWarps; ++warp)
        maximum = most_of(maximum, stats[2 * (warp * kRows + row)]);
      float sum = 0.0F;
      float total = 0.0F;
      for (int warp = 0; warp < Shape::kWarps; ++warp) {
        const int from = warp * kRows + row;
        const float factor = power_of_two(stats[2 * from] - maximum);
        sum += stats[2 * from + 1] * factor;
        total += sums[from * Shape::kSumStride + dim] * factor;
      }
      if (item.parts > 1) {
        const std::int64_t to = std::int64_t{unit} * kRows + row;
        call.partials.outputs[to * columns + dim] = total;
        if (dim != 0) continue;
        call.partials.maxima[to] = maximum;
        call.partials.sums[to] = sum;
      } else {
        const int query_head = tile.query_head(row);
        const int tensor_row = tile.tensor_row(row);
        total *= call.share(tensor_row, query_head, maximum, sum, dim == 0);
        if (call.output.data != nullptr)
          write_number(call.output, call.output.at(tensor_row, query_head) + dim, total);
      }
    }
  }

  KVAST_HD bool turns() const { return call.rope.frequencies != nullptr; }
  template <class Block>
  KVAST_HD static float* raw_queries(const Block& block) {
    return reinterpret_cast<float*>(block.shared() + Shape::kQueriesAt +
                                    Shape::kWarps * Queries::kBytes);
  }
};

}  // namespace kvast::gpu
