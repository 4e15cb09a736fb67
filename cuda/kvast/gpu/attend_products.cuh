// SPDX-License-Identifier: Apache-2.0
// The two products of attention, of one warp with one block of 32 tokens: queries with keys, and
// weights with values. Two kinds with one interface: tensor cores for 16-bit elements, whose tokens
// are the tall side of the fragment, so that the 8 query rows of a tile fill the narrow one and
// nothing is multiplied by padding; fused multiply-adds for f32.
//
// Who has what, of kRows query rows, in tiles of 8:
//   scores[tile][2 * k + b]  of token lane / 4 + 8 * k and row 8 * tile + 2 * (lane % 4) + b
//   sums[tile][index]        of that row with b = index % 2, and feature dim_of(lane, index)
// So each lane has two rows to a tile, in scores and sums alike: the softmax needs no exchange
// between the two.
#pragma once

#include <type_traits>

#include "kvast/format/floats.h"
#include "kvast/gpu/attend_tile.cuh"

namespace kvast::gpu {

inline constexpr int kTileRows = 8;
inline constexpr int kTileScores = 8;  ///< of a lane, per tile: 4 tokens times 2 rows

/// Row of a lane's `index`-th row: two to a tile.
KVAST_HD constexpr int row_of(int lane, int index) {
  return index / 2 * kTileRows + lane % 4 * 2 + index % 2;
}
KVAST_HD constexpr int token_of(int lane, int index) { return lane / 4 + 8 * index; }

/// F16 or BF16.
template <class Format, int kDim, int kRows>
struct MmaProducts {
  using Rows = SharedRows<typename Format::Element, kDim>;
  static constexpr int kTiles = kRows / kTileRows;
  static constexpr int kPanelBytes = kBlockTokens * kTileRows * 2;
  static constexpr int kScratchBytes = kTiles * kPanelBytes;  ///< of a warp

  template <class Warp>
  KVAST_HD static void scores(const Warp& warp, const std::byte* keys, const std::byte* queries,
                              float (&scores)[kTiles][kTileScores]) {
    const int lane = warp.lane();
    for (int tile = 0; tile < kTiles; ++tile) {
      for (float& score : scores[tile]) score = 0.0F;
    }
    for (int step = 0; step < kDim / 32; ++step) {
      std::uint32_t key[2][2][4];  // of 16 tokens and 16 features
      for (int half_step = 0; half_step < 2; ++half_step) {
        for (int side = 0; side < 2; ++side) {
          warp.load_matrices(
              key[half_step][side],
              keys + Rows::offset(side * 16 + lane % 16, step * 4 + half_step * 2 + lane / 16));
        }
      }
      for (int tile = 0; tile < kTiles; ++tile) {
        std::uint32_t query[4];
        warp.load_matrices(
            query, queries + Rows::offset(tile * kTileRows + lane % 8, step * 4 + lane / 8));
        for (int half_step = 0; half_step < 2; ++half_step) {
          for (int side = 0; side < 2; ++side)
            multiply(warp, scores[tile] + side * 4, key[half_step][side], query[2 * half_step],
                     query[2 * half_step + 1]);
        }
      }
    }
  }

  /// sums += weights * values, through the warp's scratch memory. Tokens that do not live have
  /// weights of 0.
  template <class Warp, int kSums>
  KVAST_HD void add(const Warp& warp, const std::byte* values, std::uint32_t /*live*/,
                    const float (&weights_of)[kTiles][kTileScores], std::byte* scratch,
                    float (&sums)[kTiles][kSums]) const {
    keep_weights(warp, weights_of, scratch);
    const int lane = warp.lane();
    std::uint32_t weights[kTiles][4];
    for (int tile = 0; tile < kTiles; ++tile)
      warp.load_matrices_turned(weights[tile], scratch + tile * kPanelBytes + lane * 16);
    for (int side = 0; side < kDim / 16; ++side) {
      for (int step = 0; step < 2; ++step) {
        std::uint32_t value[4];
        warp.load_matrices_turned(value, values + Rows::offset(step * 16 + lane / 16 * 8 + lane % 8,
                                                               side * 2 + lane / 8 % 2));
        for (int tile = 0; tile < kTiles; ++tile)
          multiply(warp, sums[tile] + side * 4, value, weights[tile][2 * step],
                   weights[tile][2 * step + 1]);
      }
    }
  }

  /// Once all values were added; nothing is left to do.
  template <class Warp, int kSums>
  KVAST_HD void finish(const Warp&, float (&)[kTiles][kSums]) const {}

  KVAST_HD static int dim_of(int lane, int index) {
    return index / 4 * 16 + lane / 4 + index / 2 % 2 * 8;
  }

 private:
  /// A panel [32 tokens, 8 rows] per tile.
  template <class Warp>
  KVAST_HD static void keep_weights(const Warp& warp, const float (&weights)[kTiles][kTileScores],
                                    std::byte* scratch) {
    const int lane = warp.lane();
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int token = 0; token < 4; ++token) {
        auto* pair = reinterpret_cast<std::uint32_t*>(scratch + tile * kPanelBytes +
                                                      token_of(lane, token) * 16 + lane % 4 * 4);
        *pair = Format::element(weights[tile][2 * token]).bits |
                static_cast<std::uint32_t>(Format::element(weights[tile][2 * token + 1]).bits)
                    << 16U;
      }
    }
    warp.sync();
  }

  template <class Warp>
  KVAST_HD static void multiply(const Warp& warp, float* sum, const std::uint32_t (&a)[4],
                                std::uint32_t b0, std::uint32_t b1) {
    float(&four)[4] = *reinterpret_cast<float(*)[4]>(sum);
    if constexpr (std::is_same_v<Format, F16>) {
      warp.multiply_f16(four, a, b0, b1);
    } else {
      warp.multiply_bf16(four, a, b0, b1);
    }
  }
};

/// F32, one tile of rows.
template <int kDim>
struct FmaProducts {
  using Rows = SharedRows<float, kDim>;
  static constexpr int kTiles = 1;
  static constexpr int kScratchBytes = kBlockTokens * kTileRows * 4;

  template <class Warp>
  KVAST_HD static void scores(const Warp& warp, const std::byte* keys, const std::byte* queries,
                              float (&scores)[kTiles][kTileScores]) {
    const int lane = warp.lane();
    for (float& score : scores[0]) score = 0.0F;
    for (int chunk = 0; chunk < Rows::kChunks; ++chunk) {
      Quad query[2];
      for (int row = 0; row < 2; ++row)
        query[row] =
            *reinterpret_cast<const Quad*>(queries + Rows::offset(row_of(lane, row), chunk));
      for (int token = 0; token < 4; ++token) {
        const Quad key =
            *reinterpret_cast<const Quad*>(keys + Rows::offset(token_of(lane, token), chunk));
        for (int at = 0; at < 4; ++at) {
          scores[0][2 * token] += query[0].at[at] * key.at[at];
          scores[0][2 * token + 1] += query[1].at[at] * key.at[at];
        }
      }
    }
  }

  template <class Warp, int kSums>
  KVAST_HD void add(const Warp& warp, const std::byte* values, std::uint32_t /*live*/,
                    const float (&weights_of)[kTiles][kTileScores], std::byte* scratch,
                    float (&sums)[kTiles][kSums]) const {
    keep_weights(warp, weights_of, scratch);
    const int lane = warp.lane();
    const float* weights = reinterpret_cast<const float*>(scratch) + row_of(lane, 0);
    for (int token = 0; token < kBlockTokens; ++token) {
      const float first = weights[token * kTileRows];
      const float second = weights[token * kTileRows + 1];
      for (int chunk = 0; chunk < kDim / 32; ++chunk) {
        const Quad value =
            *reinterpret_cast<const Quad*>(values + Rows::offset(token, chunk * 8 + lane / 4));
        for (int at = 0; at < 4; ++at) {
          sums[0][chunk * 8 + at * 2] += first * value.at[at];
          sums[0][chunk * 8 + at * 2 + 1] += second * value.at[at];
        }
      }
    }
  }

  template <class Warp, int kSums>
  KVAST_HD void finish(const Warp&, float (&)[kTiles][kSums]) const {}

  KVAST_HD static int dim_of(int lane, int index) {
    return (index / 8 * 8 + lane / 4) * 4 + index / 2 % 4;
  }

 private:
  template <class Warp>
  KVAST_HD static void keep_weights(const Warp& warp, const float (&weights)[kTiles][kTileScores],
                                    std::byte* scratch) {
    const int lane = warp.lane();
    auto* panel = reinterpret_cast<float*>(scratch);
    for (int token = 0; token < 4; ++token) {
      float* pair = panel + token_of(lane, token) * kTileRows + row_of(lane, 0);
      pair[0] = weights[0][2 * token];
      pair[1] = weights[0][2 * token + 1];
    }
    warp.sync();
  }
};

}  // namespace kvast::gpu
