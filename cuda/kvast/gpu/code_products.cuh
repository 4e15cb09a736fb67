// SPDX-License-Identifier: Apache-2.0
// attend_products.cuh over codes: the levels are one side of the fragments, and what a group's
// metadata multiplies goes into the other one, which is 2 to 4 times smaller. So:
//   q.k = sum of (q * scale) * level, and once per query the sum of q * minimum
//   w.v = sum of (w * scale) * level, and once per group of 32 channels the sum of w * minimum
// Queries come times a power of two (attend_queries.cuh) and are multiplied by scales in halves;
// CodeTile::power keeps the products in range, and what it adds is taken out of the f32 sums.
#pragma once

#include "kvast/gpu/attend_products.cuh"
#include "kvast/gpu/code_tile.cuh"

namespace kvast::gpu {

/// 2^power as a float, for powers of normal numbers.
KVAST_HD constexpr float exact_power(int power) {
  return bits_as<float>(static_cast<std::uint32_t>(power + 127) << 23U);
}

/// Keys and values in formats of their own.
template <class Keys, class Values, int kDim, int kRows>
class CodeProducts {
 public:
  static constexpr int kTiles = kRows / kTileRows;
  static constexpr int kPanelBytes = kBlockTokens * kTileRows * 2;
  static constexpr int kScratchBytes = kTiles * kPanelBytes;  ///< of a warp
  static constexpr int kSums = kDim / 4 + 2;  ///< of a lane and tile; two are of minima
  using KeyTile = CodeTile<Keys, Part::keys, kDim>;
  using ValueTile = CodeTile<Values, Part::values, kDim>;

  /// Where `scores` expects a query's number: a lane's four of a step stand together.
  KVAST_HD static half& query_number(std::byte* queries, int row, int channel) {
    const int lane = row % kTileRows * 4 + channel % kFragment / 4;
    return reinterpret_cast<half*>(
        queries + query_offset(row / kTileRows, channel / kFragment, lane))[channel % 4];
  }

  template <class Warp>
  KVAST_HD static void scores(const Warp& warp, const std::byte* keys, const std::byte* queries,
                              float (&scores)[kTiles][kTileScores]) {
    const int lane = warp.lane();
    const int power = KeyTile::power(warp, keys);
    const std::uint32_t shrink = twice_power(power - kMostPower);
    float minima[kTiles][4];
    float more[kTiles][4];  // for all tokens of a register alike
    for (int tile = 0; tile < kTiles; ++tile) {
      for (float& score : scores[tile]) score = 0.0F;
      for (float& sum : minima[tile]) sum = 0.0F;
      for (float& sum : more[tile]) sum = 0.0F;
    }
    constexpr int kOfChunk = KeyTile::kChannelsOfChunk / kFragment;
    Chunk chunk{};
    for (int step = 0; step < kDim / kFragment; ++step) {
      if (step % kOfChunk == 0) chunk = KeyTile::chunk(keys, lane, step / kOfChunk);
      std::uint32_t key[2][4];
      KeyTile::fragments(chunk, step % kOfChunk, key);
      const int channel = step * kFragment + lane % 4 * 4;
      for (int tile = 0; tile < kTiles; ++tile) {
        FourHalves query = query_at(queries, tile, step, lane);
        if constexpr (KeyTile::kPlanes == 2) {
          const FourHalves of = KeyTile::metadata(keys, 1, channel);
          const std::uint32_t rows[4] = {of.pairs[0], of.pairs[0], of.pairs[1], of.pairs[1]};
          warp.multiply_f16(minima[tile], rows, query.pairs[0], query.pairs[1]);
        }
        if constexpr (KeyTile::kPlanes >= 1) {
          FourHalves scale = KeyTile::metadata(keys, 0, channel);
          for (std::uint32_t& pair : scale.pairs) pair = multiply_pairs(pair, shrink);
          const FourHalves scaled = product(query, scale);
          if constexpr (KeyTile::kPlanes == 2) {
            constexpr std::uint32_t kCentre = twice(CodePairs<Keys>::kCentre);
            const std::uint32_t rows[4] = {kCentre, kCentre, kCentre, kCentre};
            multiply(warp, more[tile], rows, lost_of(query, scale, scaled));
          }
          query = scaled;
        }
        take_base<Keys>(warp, more[tile], query);
        for (int side = 0; side < 2; ++side)
          multiply(warp, scores[tile] + side * 4, key[side], query);
      }
    }
    const float unit = CodePairs<Keys>::kUnit * exact_power(kMostPower - power);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int at = 0; at < kTileScores; ++at)
        scores[tile][at] = (scores[tile][at] + more[tile][at % 4]) * unit + minima[tile][at % 2];
    }
  }

  /// `scratch`: the warp's, for the weights. `sums` are those of MmaProducts once `finish` was
  /// called.
  template <class Warp>
  KVAST_HD void add(const Warp& warp, const std::byte* values,
                    const float (&weights)[kTiles][kTileScores], std::byte* scratch,
                    float (&sums)[kTiles][kSums]) {
    const int lane = warp.lane();
    const int power = ValueTile::power(warp, values);
    if (power != power_) {
      for (auto& of_tile : sums) {
        for (float& sum : of_tile) sum *= exact_power(power - power_);
      }
      power_ = power;
    }
    keep_weights(warp, weights, exact_power(power), scratch);
    FourHalves weight[kTiles][2];  // of sixteen tokens each
    for (int tile = 0; tile < kTiles; ++tile) {
      std::uint32_t loaded[4];
      warp.load_matrices_turned(loaded, scratch + tile * kPanelBytes + panel_row(row_given(lane)));
      for (int at = 0; at < 4; ++at) weight[tile][at / 2].pairs[at % 2] = loaded[at];
    }
    if constexpr (ValueTile::kPlanes == 2) add_minima(warp, values, weight, sums);
    constexpr int kOfChunk = ValueTile::kChannelsOfChunk / kFragment;
    Chunk chunk{};
    for (int group = 0; group < kDim / kBlockTokens; ++group) {
      FourHalves scaled[kTiles][2];
      for (int step = 0; step < 2; ++step) {
        FourHalves scale{};
        if constexpr (ValueTile::kPlanes >= 1)
          scale = ValueTile::metadata(values, 0, group_of(lane, group, step));
        for (int tile = 0; tile < kTiles; ++tile) {
          scaled[tile][step] = weight[tile][step];
          if constexpr (ValueTile::kPlanes >= 1) {
            scaled[tile][step] = product(weight[tile][step], scale);
          }
        }
      }
      for (int side = 2 * group; side < 2 * group + 2; ++side) {
        if (side % kOfChunk == 0) chunk = ValueTile::chunk(values, lane, side / kOfChunk);
        std::uint32_t value[2][4];
        ValueTile::fragments(chunk, side % kOfChunk, value);
        for (int step = 0; step < 2; ++step) {
          for (int tile = 0; tile < kTiles; ++tile) {
            multiply(warp, sums[tile] + side * 4, value[step], scaled[tile][step]);
            take_base<Values>(warp, sums[tile] + side * 4, scaled[tile][step]);
          }
        }
      }
    }
  }

  /// Sums of levels become sums of values.
  template <class Warp>
  KVAST_HD void finish(const Warp& warp, float (&sums)[kTiles][kSums]) {
    const int lane = warp.lane();
    const float unit = exact_power(-power_);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int group = 0; group < kDim / kBlockTokens; ++group) {
        float minima[2] = {};
        if constexpr (ValueTile::kPlanes == 2) {
          for (int row = 0; row < 2; ++row)
            minima[row] = warp.shuffle(sums[tile][kDim / 4 + row], group * 4 + lane % 4);
        }
        for (int at = group * 8; at < group * 8 + 8; ++at)
          sums[tile][at] = (sums[tile][at] * CodePairs<Values>::kUnit + minima[at % 2]) * unit;
      }
      for (int row = 0; row < 2; ++row) sums[tile][kDim / 4 + row] = 0.0F;
    }
    power_ = kMostPower;
  }

 private:
  KVAST_HD static int query_offset(int tile, int step, int lane) {
    return ((tile * (kDim / kFragment) + step) * kWarp + lane) *
           static_cast<int>(sizeof(FourHalves));
  }
  KVAST_HD static FourHalves query_at(const std::byte* queries, int tile, int step, int lane) {
    return *reinterpret_cast<const FourHalves*>(queries + query_offset(tile, step, lane));
  }
  KVAST_HD static FourHalves product(const FourHalves& one, const FourHalves& other) {
    return {{multiply_pairs(one.pairs[0], other.pairs[0]),
             multiply_pairs(one.pairs[1], other.pairs[1])}};
  }
  /// What rounding took from a product. Levels of few bits are all positive, so it would weigh as
  /// much as their mean: it is added again as often as their centre, and then weighs as much as
  /// they are apart.
  KVAST_HD static FourHalves lost_of(const FourHalves& one, const FourHalves& other,
                                     const FourHalves& rounded) {
    FourHalves lost;
    for (int pair = 0; pair < 2; ++pair)
      lost.pairs[pair] =
          multiply_subtract_pairs(one.pairs[pair], other.pairs[pair], rounded.pairs[pair]);
    return lost;
  }
  /// Of a lane's four tokens in the `step`-th sixteen, and a group of channels.
  KVAST_HD static int group_of(int lane, int group, int step) {
    return group * kBlockTokens + step * kFragment + lane % 4 * 4;
  }
  /// Where a token's weights stand in a panel: permuted so that neither the store of eight
  /// neighbours nor the load of a matrix, tokens 4 i and 4 i + 1, meets a bank twice.
  KVAST_HD static int panel_row(int token) { return (token ^ (token >> 3U & 1) * 2) * 16; }
  /// The token whose row a lane gives for ldmatrix: row k of matrix m is what fragments have at
  /// neighbours k of register m.
  KVAST_HD static int row_given(int lane) {
    const int matrix = lane / 8;
    const int row = lane % 8;
    return matrix / 2 * kFragment + row / 2 * 4 + matrix % 2 * 2 + row % 2;
  }
  template <class Warp>
  KVAST_HD static void multiply(const Warp& warp, float* sum, const std::uint32_t (&a)[4],
                                const FourHalves& b) {
    warp.multiply_f16(*reinterpret_cast<float(*)[4]>(sum), a, b.pairs[0], b.pairs[1]);
  }

  /// Takes off what `b` times levels of a fragment has too much: their bases (CodePairs).
  template <class Format, class Warp>
  KVAST_HD static void take_base(const Warp& warp, float* sum, const FourHalves& b) {
    using Pairs = CodePairs<Format>;
    if constexpr (Pairs::kHasBase) {
      const auto minus = [](int of_register) { return twice(Pairs::base(of_register) | 0x8000U); };
      const std::uint32_t bases[4] = {minus(0), minus(1), minus(2), minus(3)};
      multiply(warp, sum, bases, b);
    }
  }

  template <class Warp>
  KVAST_HD static void keep_weights(const Warp& warp, const float (&weights)[kTiles][kTileScores],
                                    float factor, std::byte* scratch) {
    const int lane = warp.lane();
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int token = 0; token < 4; ++token) {
        const float* pair = weights[tile] + 2 * token;
        *reinterpret_cast<std::uint32_t*>(scratch + tile * kPanelBytes +
                                          panel_row(token_of(lane, token)) + lane % 4 * 4) =
            pair_of(pair[0] * factor, pair[1] * factor);
      }
    }
    warp.sync();
  }

  /// A fragment whose rows are groups of channels.
  template <class Warp>
  KVAST_HD static void add_minima(const Warp& warp, const std::byte* values,
                                  const FourHalves (&weight)[kTiles][2],
                                  float (&sums)[kTiles][kSums]) {
    static_assert(kDim <= 8 * kBlockTokens);
    const int lane = warp.lane();
    for (int tile = 0; tile < kTiles; ++tile) {
      float sum[4] = {sums[tile][kDim / 4], sums[tile][kDim / 4 + 1], 0.0F, 0.0F};
      for (int step = 0; step < 2; ++step) {
        FourHalves minima{};
        if (lane / 4 < kDim / kBlockTokens)
          minima = ValueTile::metadata(values, 1, group_of(lane, lane / 4, step));
        const std::uint32_t rows[4] = {minima.pairs[0], 0U, minima.pairs[1], 0U};
        warp.multiply_f16(sum, rows, weight[tile][step].pairs[0], weight[tile][step].pairs[1]);
      }
      sums[tile][kDim / 4] = sum[0];
      sums[tile][kDim / 4 + 1] = sum[1];
    }
  }

  int power_ = kMostPower;  ///< of two, that sums are too large by
};

}  // namespace kvast::gpu
