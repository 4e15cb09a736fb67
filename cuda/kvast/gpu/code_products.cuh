// SPDX-License-Identifier: Apache-2.0
// attend_products.cuh over codes: the levels are one side of the fragments, and what a group's
// metadata multiplies goes into the other one, which is 2 to 4 times smaller. So:
//   q.k = sum of (q * scale) * level, and once per query the sum of q * minimum
//   w.v = sum of (w * scale) * level, and once per group of 32 channels the sum of w * minimum
// These products are made in halves. Queries come times a power of two (attend_queries.cuh), and
// CodeTile knows others for scales and weights; what they add is taken out of the f32 sums.
//
// What rounding takes from q * scale differs from block to block, as scales do, so it is no shift
// that a softmax would not see, and it is alike for tokens that are alike. What it takes from
// w * scale is alike wherever tokens share their weight and scale, so that it would grow with their
// number, and a sum of values around zero with the root of it only. So both are multiplied by the
// codes as well.
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
  using KeyPairs = CodePairs<Keys>;
  using ValuePairs = CodePairs<Values>;

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
    int power = 0;
    if constexpr (KeyTile::kPlanes != 0) power = KeyTile::scale_power(warp, keys);
    const std::uint32_t factor = twice_power(power);
    float zeros[kTiles][4];  // what the code zero is worth, for all tokens alike
    float lost[kTileScores] = {};
    for (int tile = 0; tile < kTiles; ++tile) {
      for (float& score : scores[tile]) score = 0.0F;
      for (float& sum : zeros[tile]) sum = 0.0F;
    }
    constexpr int kOfChunk = KeyTile::kChannelsOfChunk / kFragment;
    Chunk chunk{};
    for (int step = 0; step < kDim / kFragment; ++step) {
      if (step % kOfChunk == 0) chunk = KeyTile::chunk(keys, lane, step / kOfChunk);
      std::uint32_t key[2][4];
      KeyTile::fragments(chunk, step % kOfChunk, key);
      const int channel = step * kFragment + lane % 4 * 4;
      for (int tile = 0; tile < kTiles; ++tile) {
        const FourHalves query = query_at(queries, tile, step, lane);
        if constexpr (KeyTile::kPlanes == 0) {
          multiply_both(warp, scores[tile], key, query);
        } else {
          FourHalves scale = KeyTile::metadata(keys, 0, channel);
          for (std::uint32_t& pair : scale.pairs) pair = multiply_pairs(pair, factor);
          const FourHalves zero = KeyTile::kPlanes == 2
                                      ? KeyTile::metadata(keys, KeyTile::kPlanes - 1, channel)
                                      : scale;
          multiply_rows(warp, zeros[tile], zero, query);
          const FourHalves scaled = product(query, scale);
          multiply_both(warp, scores[tile], key, scaled);
          // of one tile in sums of its own: each product waits for the one before it
          multiply_both(warp, kTiles == 1 ? lost : scores[tile], key,
                        lost_of(query, scale, scaled));
        }
      }
    }
    const float unit = exact_power(-power);
    const float of_zeros =
        KeyTile::kPlanes == 2 ? 1.0F : -unit * static_cast<float>(KeyPairs::kZero);
    for (int tile = 0; tile < kTiles; ++tile) {
      for (int at = 0; at < kTileScores; ++at) {
        const float score = kTiles == 1 ? scores[tile][at] + lost[at] : scores[tile][at];
        scores[tile][at] =
            score * (KeyPairs::unit(at % 4 / 2) * unit) + zeros[tile][at % 2] * of_zeros;
      }
    }
  }

  /// `scratch`: the warp's, for the weights. `sums` are those of MmaProducts once `finish` was
  /// called.
  template <class Warp>
  KVAST_HD void add(const Warp& warp, const std::byte* values, std::uint32_t live,
                    const float (&weights)[kTiles][kTileScores], std::byte* scratch,
                    float (&sums)[kTiles][kSums]) {
    const int lane = warp.lane();
    const int power = ValueTile::weight_power(warp, values, live, power_);
    if (power != power_) {
      for (auto& of_tile : sums) {
        for (float& sum : of_tile) sum *= exact_power(power - power_);
      }
      power_ = power;
    }
    const int of_weights = least_of(power, kMostPower);
    const int of_scales = power - of_weights;
    keep_weights(warp, weights, exact_power(of_weights), scratch);
    FourHalves weight[kTiles][2];  // of sixteen tokens each
    for (int tile = 0; tile < kTiles; ++tile) {
      std::uint32_t loaded[4];
      warp.load_matrices_turned(loaded, scratch + tile * kPanelBytes + panel_row(row_given(lane)));
      for (int at = 0; at < 4; ++at) weight[tile][at / 2].pairs[at % 2] = loaded[at];
    }
    if constexpr (ValueTile::kPlanes >= 1)
      add_zeros(warp, values, weight, exact_power(of_scales), sums);
    constexpr int kOfChunk = ValueTile::kChannelsOfChunk / kFragment;
    Chunk chunk{};
    for (int group = 0; group < kDim / kBlockTokens; ++group) {
      Scaled scaled[kTiles];
      for (int tile = 0; tile < kTiles; ++tile)
        scaled[tile] =
            scale(values, weight[tile], group_of(lane, group, 0), twice_power(of_scales));
      std::uint32_t value[2][2][4];
      for (int half = 0; half < 2; ++half) {
        const int side = 2 * group + half;
        if (side % kOfChunk == 0) chunk = ValueTile::chunk(values, lane, side / kOfChunk);
        ValueTile::fragments(chunk, side % kOfChunk, value[half]);
      }
      for (int tile = 0; tile < kTiles; ++tile)
        add_group(warp, value, scaled[tile], sums[tile] + group * 8);
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
        if constexpr (ValueTile::kPlanes >= 1) {
          for (int row = 0; row < 2; ++row)
            minima[row] = warp.shuffle(sums[tile][kDim / 4 + row], group * 4 + lane % 4);
        }
        for (int at = group * 8; at < group * 8 + 8; ++at)
          sums[tile][at] = (sums[tile][at] * ValuePairs::unit(at % 4 / 2) + minima[at % 2]) * unit;
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
  /// What rounding took from a product.
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

  /// With keys of both halves of a block.
  template <class Warp>
  KVAST_HD static void multiply_both(const Warp& warp, float (&scores)[kTileScores],
                                     const std::uint32_t (&key)[2][4], const FourHalves& b) {
    for (int side = 0; side < 2; ++side) multiply(warp, scores + side * 4, key[side], b);
  }
  /// A fragment whose first eight rows are one, and its last eight nothing.
  template <class Warp>
  KVAST_HD static void multiply_rows(const Warp& warp, float* sum, const FourHalves& rows,
                                     const FourHalves& b) {
    multiply(warp, sum, {rows.pairs[0], 0, rows.pairs[1], 0}, b);
  }

  /// Weights times scales, of sixteen tokens each: as halves, and what rounding took from them.
  struct Scaled {
    FourHalves product[2];
    FourHalves lost[ValueTile::kPlanes == 0 ? 1 : 2];
  };
  /// `factor`: of scales, a power of two.
  KVAST_HD static Scaled scale(const std::byte* values, const FourHalves (&weight)[2], int group,
                               std::uint32_t factor) {
    Scaled scaled;
    for (int step = 0; step < 2; ++step) {
      scaled.product[step] = weight[step];
      if constexpr (ValueTile::kPlanes >= 1) {
        FourHalves scale = ValueTile::metadata(values, 0, group + step * kFragment);
        for (std::uint32_t& pair : scale.pairs) pair = multiply_pairs(pair, factor);
        scaled.product[step] = product(weight[step], scale);
        scaled.lost[step] = lost_of(weight[step], scale, scaled.product[step]);
      }
    }
    return scaled;
  }

  /// What 32 channels of a block come to. Tensor cores round towards zero, so that what they cut
  /// off from a sum that grows would add up: where codes have no sign, theirs is a block's alone.
  /// Both sixteens go side by side, as each product waits for the one before it.
  template <class Warp>
  KVAST_HD static void add_group(const Warp& warp, const std::uint32_t (&value)[2][2][4],
                                 const Scaled& scaled, float* sums) {
    if constexpr (ValueTile::kPlanes == 0) {
      for (int step = 0; step < 2; ++step) {
        for (int half = 0; half < 2; ++half)
          multiply(warp, sums + half * 4, value[half][step], scaled.product[step]);
      }
    } else {
      float of_block[8] = {};
      for (int step = 0; step < 2; ++step) {
        for (int half = 0; half < 2; ++half)
          multiply(warp, of_block + half * 4, value[half][step], scaled.product[step]);
        for (int half = 0; half < 2; ++half)
          multiply(warp, of_block + half * 4, value[half][step], scaled.lost[step]);
      }
      for (int at = 0; at < 8; ++at) sums[at] += of_block[at];
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

  /// What the code zero is worth, by groups: in the first eight rows of the sums' last fragment.
  /// Nothing is rounded: minima, or the scales of levels below zero, are a side of the product.
  template <class Warp>
  KVAST_HD static void add_zeros(const Warp& warp, const std::byte* values,
                                 const FourHalves (&weight)[kTiles][2], float of_scales,
                                 float (&sums)[kTiles][kSums]) {
    static_assert(kDim <= 8 * kBlockTokens);
    constexpr int kPlane = ValueTile::kPlanes - 1;
    const float factor =
        ValueTile::kPlanes == 2 ? of_scales : -of_scales * static_cast<float>(ValuePairs::kZero);
    const int group = warp.lane() / 4;
    FourHalves number[2] = {};
    for (int step = 0; step < 2; ++step) {
      if (group < kDim / kBlockTokens)
        number[step] = ValueTile::metadata(values, kPlane, group_of(warp.lane(), group, step));
    }
    for (int tile = 0; tile < kTiles; ++tile) {
      float sum[4] = {};
      for (int step = 0; step < 2; ++step)
        multiply_rows(warp, sum, number[step], weight[tile][step]);
      for (int row = 0; row < 2; ++row) sums[tile][kDim / 4 + row] += sum[row] * factor;
    }
  }

  int power_ = kMostPower;  ///< of two, that sums are too large by
};

}  // namespace kvast::gpu
