// SPDX-License-Identifier: Apache-2.0
// A tile's queries in the memory that AttendShape has for them: as their keys are stored, what they
// were multiplied by taken back in the logits.
#pragma once

#include "kvast/gpu/attend_logits.cuh"
#include "kvast/gpu/attend_shape.cuh"

namespace kvast::gpu {

template <class Shape, int kDim>
struct TileQueries {
  using Queries = typename Shape::Queries;
  using Factors = float[2 * Shape::Products::kTiles];  ///< of a lane's rows

  /// Whether queries turn to meet keys stored rotated by their slot. Codes are not.
  KVAST_HD static bool turn(const AttendCall& call) {
    if constexpr (Shape::kCodes) return false;
    return call.rope.frequencies != nullptr;
  }
  /// By the whole block.
  template <class Block>
  KVAST_HD static void load(const Block& block, const AttendCall& call, const RowTile& tile) {
    std::byte* to = shared(block);
    if constexpr (Shape::kCodes) {
      std::byte* of_codes = for_codes(block);
      Queries::load_scaled(block, call, tile,
                           reinterpret_cast<float*>(block.shared() + Shape::kFactorsAt),
                           [to, of_codes](int row, int dim, float number) {
                             Queries::store(to, row, dim, number);
                             Shape::Coded::Products::query_number(of_codes, row, dim) =
                                 to_half(clamped(number, -kHalfMax, kHalfMax));
                           });
    } else if (turn(call)) {
      float* floats = raw(block);
      Queries::load(block, call, tile, [floats](int row, int dim, float number) {
        floats[row * kDim + dim] = number;
      });
    } else {
      Queries::load(block, call, tile,
                    [to](int row, int dim, float number) { Queries::store(to, row, dim, number); });
    }
  }
  /// What makes logits of the products of a lane's rows.
  template <class Block>
  KVAST_HD static void load_factors(const Block& block, const AttendCall& call, Factors& factors) {
    const auto* of_rows = reinterpret_cast<const float*>(block.shared() + Shape::kFactorsAt);
    for (int row = 0; row < 2 * Shape::Products::kTiles; ++row) {
      factors[row] = call.rules.factor;
      if constexpr (Shape::kCodes) factors[row] *= of_rows[row_of(block.warp().lane(), row)];
    }
  }
  /// Queries as they meet keys; where they turn, room for those of a warp.
  template <class Block>
  KVAST_HD static std::byte* shared(const Block& block) {
    return block.shared() + Shape::kQueriesAt;
  }
  /// The same numbers in the order of CodeProducts.
  template <class Block>
  KVAST_HD static std::byte* for_codes(const Block& block) {
    return shared(block) + Queries::kBytes;
  }
  template <class Block>
  KVAST_HD static std::byte* turned(const Block& block) {
    return shared(block) + block.warp_index() * Queries::kBytes;
  }
  /// As they came: floats [rows, kDim].
  template <class Block>
  KVAST_HD static float* raw(const Block& block) {
    return reinterpret_cast<float*>(shared(block) + Shape::kWarps * Queries::kBytes);
  }

  /// Products with the keys of a block in shared memory.
  template <class Reading, class Block>
  KVAST_HD static void scores(const Block& block, const AttendCall& call, const RowTile& tile,
                              std::uint32_t live, int before, const std::byte* keys,
                              float (&scores)[Shape::Products::kTiles][kTileScores]) {
    if (turn(call)) {
      if constexpr (!Shape::kCodes) {
        turned_scores<typename Shape::Products, Queries>(block.warp(), call, tile, live, before,
                                                         keys, raw(block), turned(block), scores);
      }
    } else {
      constexpr bool kOfCodes =
          !std::is_same_v<typename Reading::Products, typename Shape::Products>;
      Reading::Products::scores(block.warp(), keys, kOfCodes ? for_codes(block) : shared(block),
                                scores);
    }
  }
};

}  // namespace kvast::gpu
