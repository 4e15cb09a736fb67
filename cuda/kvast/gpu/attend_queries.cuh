// SPDX-License-Identifier: Apache-2.0
// A tile's queries in shared memory: as they meet keys, or, for compacted positions, as they are,
// to be turned for each run of tokens.
#pragma once

#include "kvast/gpu/attend_rows.cuh"
#include "kvast/gpu/code_tile.cuh"
#include "kvast/gpu/rotate.cuh"

namespace kvast::gpu {

/// Cosine and sine of position * frequency. The product is brought below a turn in double: in float
/// it is off by 1e-3 at position 1e4.
KVAST_HD inline void angle_of(int position, float frequency, float& cosine, float& sine) {
  constexpr double kTurn = 6.283185307179586;
  const double turns = static_cast<double>(position) * static_cast<double>(frequency) / kTurn;
#if defined(__CUDA_ARCH__)
  const auto angle = static_cast<float>((turns - rint(turns)) * kTurn);
  cosine = __cosf(angle);
  sine = __sinf(angle);
#else
  const auto angle = static_cast<float>((turns - std::nearbyint(turns)) * kTurn);
  cosine = std::cos(angle);
  sine = std::sin(angle);
#endif
}

/// [kRows, kDim] in a format's elements.
template <class Format, int kDim, int kRows>
struct QueryRows {
  using Rows = SharedRows<typename Format::Element, kDim>;
  static constexpr int kBytes = kRows * Rows::kRowBytes;
  static constexpr int kRawBytes = kRows * kDim * 4;

  /// Numbers beyond the format's range become its largest.
  KVAST_HD static void store(std::byte* to, int row, int dim, float number) {
    Rows::at(to, row, dim) = Format::element(clamped(number, -Format::kLargest, Format::kLargest));
  }

  /// By the whole block: number(row, dim) is 0 where the tile has no such row or feature.
  template <class Block, class Store>
  KVAST_HD static void load(const Block& block, const AttendCall& call, const RowTile& tile,
                            const Store& store_number) {
    for (int at = block.thread(); at < kRows * kDim; at += block.threads()) {
      const int row = at / kDim;
      const int dim = at % kDim;
      float number = 0.0F;
      if (row < tile.count && dim < call.layer.head_dim) {
        number = read_number(call.queries,
                             call.queries.at(tile.tensor_row(row), tile.query_head(row)) + dim);
      }
      store_number(row, dim, number);
    }
  }

  /// For codes, by the whole block: each row, rotated as keys are, times the power of two that
  /// brings its largest number below 2^kQueryPower, since products with scales are halves
  /// (code_products.cuh). `factors` [kRows] take it back.
  /// store(row, dim, number).
  template <class Block, class Store>
  KVAST_HD static void load_scaled(const Block& block, const AttendCall& call, const RowTile& tile,
                                   float* factors, const Store& store_number) {
    constexpr unsigned kUp = 254 + kQueryPower - 1;  // the sum of both exponents
    const auto warp = block.warp();
    for (int row = block.warp_index(); row < kRows; row += block.warps()) {
      LaneVector<kDim / kWarp> query;
      if (row < tile.count) {
        const std::int64_t from = call.queries.at(tile.tensor_row(row), tile.query_head(row));
        query.each(warp.lane(), call.layer.head_dim,
                   [&](int dim, float& number) { number = read_number(call.queries, from + dim); });
      }
      if (call.layer.key_rotation.dim != 0) query.rotate(warp, call.layer.key_rotation);
      float most = 0.0F;
      for (const float number : query.numbers) most = most_of(most, magnitude_of(number));
      const std::uint32_t exponent =
          clamped(bits_as<std::uint32_t>(warp_max(warp, most)) >> 23U, kUp - 253U, 254U);
      const auto up = bits_as<float>((kUp - exponent) << 23U);
      query.each(warp.lane(), kDim,
                 [&](int dim, float number) { store_number(row, dim, number * up); });
      if (warp.lane() == 0) factors[row] = bits_as<float>((exponent + 254U - kUp) << 23U);
    }
  }

  /// By a warp, from raw floats [kRows, kDim]: each row turned by distance(row).
  template <class Warp, class Distance>
  KVAST_HD static void turn(const Warp& warp, const QueryRope& rope, const float* raw, int rows,
                            const Distance& distance, std::byte* to) {
    const int pairs = rope.width / 2;
    const int step = rope.pairing == Pairing::halves ? 1 : 2;
    const int apart = rope.pairing == Pairing::halves ? pairs : 1;
    for (int pair = warp.lane(); pair < pairs; pair += kWarp) {
      float cosine = 1.0F;
      float sine = 0.0F;
      for (int row = 0; row < rows; ++row) {
        if (row == 0 || distance(row) != distance(row - 1)) {
          angle_of(distance(row), rope.frequencies[pair], cosine, sine);
          cosine *= rope.scale;
          sine *= rope.scale;
        }
        const float first = raw[row * kDim + pair * step];
        const float second = raw[row * kDim + pair * step + apart];
        store(to, row, pair * step, first * cosine - second * sine);
        store(to, row, pair * step + apart, first * sine + second * cosine);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      const int begin = row < rows ? rope.width : 0;
      for (int dim = begin + warp.lane(); dim < kDim; dim += kWarp)
        store(to, row, dim, row < rows ? raw[row * kDim + dim] : 0.0F);
    }
    warp.sync();
  }
};

}  // namespace kvast::gpu
