// SPDX-License-Identifier: Apache-2.0
// What a Llama layer does besides attention, on the device: plain kernels over the library's seam,
// one row of activations after another. Rows are packed floats.
#pragma once

#include <cmath>
#include <cstdint>

#include "kvast/core/half.h"
#include "kvast/core/rope.h"
#include "kvast/gpu/block.cuh"
#include "kvast/gpu/collective.cuh"

namespace kvast::decoder::gpu_kernels {

using gpu::kWarp;
using gpu::warp_sum;

/// A matrix of 16-bit weights, [rows, stride]; columns beyond the last are zeros, so that a stride
/// of whole chunks can be read.
struct DeviceMatrix {
  static constexpr int kChunk = 8;  ///< weights in 16 bytes
  const half* weights = nullptr;
  int rows = 0;
  int columns = 0;

  KVAST_HD static int stride_of(int columns) { return (columns + kChunk - 1) / kChunk * kChunk; }
  KVAST_HD int stride() const { return stride_of(columns); }
  KVAST_HD const half* row(int index) const { return weights + std::int64_t{index} * stride(); }
};

/// Rows of the embedding. Grid: tokens.
struct EmbedTokens {
  static constexpr int kThreads = 128;
  DeviceMatrix embedding{};
  const int* tokens = nullptr;
  float* to = nullptr;  ///< [tokens, columns]

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const half* from = embedding.row(tokens[block.index()]);
    float* row = to + std::int64_t{block.index()} * embedding.columns;
    for (int column = block.thread(); column < embedding.columns; column += block.threads())
      row[column] = to_float(from[column]);
  }
};

/// to = from / rms(from) * gain, of each row or of the chosen ones. Ref: RMSNorm, arXiv:1910.07467.
/// Grid: rows.
struct NormalizeRows {
  static constexpr int kThreads = 128;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(float);
  const float* from = nullptr;  ///< [rows, features]
  const int* chosen = nullptr;  ///< [rows] of `from`; null: all of them
  const float* gain = nullptr;  ///< [features]
  float* to = nullptr;          ///< [rows, features]
  int features = 0;
  float epsilon = 0;

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int place = chosen == nullptr ? block.index() : chosen[block.index()];
    const float* row = from + std::int64_t{place} * features;
    float squares = 0.0F;
    for (int feature = block.thread(); feature < features; feature += block.threads())
      squares += row[feature] * row[feature];
    const auto warp = block.warp();
    auto* shared = reinterpret_cast<float*>(block.shared());
    squares = warp_sum(warp, squares);
    if (warp.lane() == 0) shared[block.warp_index()] = squares;
    block.sync();
    float total = 0.0F;
    for (int at = 0; at < block.warps(); ++at) total += shared[at];
    const float factor = 1.0F / std::sqrt(total / static_cast<float>(features) + epsilon);
    float* out = to + std::int64_t{block.index()} * features;
    for (int feature = block.thread(); feature < features; feature += block.threads())
      out[feature] = row[feature] * factor * gain[feature];
  }
};

/// to = weights x from, or to += it: a warp computes one output feature of up to kRows rows, so
/// that it reads its weights once for them, 16 bytes a lane. Sums are in f32.
struct MultiplyRows {
  static constexpr int kThreads = 128;
  static constexpr int kRows = 8;
  DeviceMatrix matrix{};
  const float* from = nullptr;  ///< [rows, matrix.columns]
  float* to = nullptr;          ///< [rows, matrix.rows]
  int rows = 0;
  bool adds = false;

  int tiles() const { return (rows + kRows - 1) / kRows; }
  /// Every tile of rows, and for each every group of as many features as a block has warps.
  gpu::Grid grid() const { return {tiles() * groups(), 0}; }

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    const int feature = block.index() % groups() * (kThreads / kWarp) + block.warp_index();
    if (feature >= matrix.rows) return;
    const int first = block.index() / groups() * kRows;
    const int count = rows - first < kRows ? rows - first : kRows;
    const half* weights = matrix.row(feature);
    const float* inputs = from + std::int64_t{first} * matrix.columns;
    float sums[kRows] = {};
    constexpr int kChunk = DeviceMatrix::kChunk;
    for (int column = warp.lane() * kChunk; column < matrix.columns; column += kWarp * kChunk)
      add_chunk(weights, inputs, column, count, sums);
    for (int row = 0; row < kRows; ++row) {
      if (row >= count) break;
      const float sum = warp_sum(warp, sums[row]);
      float& place = to[std::int64_t{first + row} * matrix.rows + feature];
      if (warp.lane() == 0) place = adds ? place + sum : sum;
    }
  }

 private:
  KVAST_HD int groups() const { return (matrix.rows + kThreads / kWarp - 1) / (kThreads / kWarp); }
  KVAST_HD void add_chunk(const half* weights, const float* inputs, int column, int count,
                          float (&sums)[kRows]) const {
    const gpu::Chunk chunk = *reinterpret_cast<const gpu::Chunk*>(weights + column);
    float numbers[DeviceMatrix::kChunk];
    for (int at = 0; at < DeviceMatrix::kChunk; ++at) {
      const std::uint32_t pair = chunk.words[at / 2];
      numbers[at] = to_float(half{static_cast<std::uint16_t>(at % 2 == 0 ? pair : pair >> 16U)});
    }
    const int rest = matrix.columns - column;
    for (int row = 0; row < kRows; ++row) {
      if (row >= count) break;
      const float* input = inputs + std::int64_t{row} * matrix.columns + column;
      for (int at = 0; at < DeviceMatrix::kChunk; ++at) {
        if (at < rest) sums[row] += numbers[at] * input[at];
      }
    }
  }
};

/// Rotates heads of rows in place. Grid: rows.
struct TurnHeads {
  static constexpr int kThreads = 128;
  float* heads = nullptr;         ///< [rows, count, head_dim]
  const float* angles = nullptr;  ///< [rows, pairs, (cosine, sine)]
  int count = 0;
  int head_dim = 0;
  int pairs = 0;
  int step = 1;   ///< between the first features of neighbouring pairs
  int apart = 0;  ///< between the features of a pair

  static TurnHeads of(const Rope& rope) {
    const bool halves = rope.pairing == Pairing::halves;
    return {.pairs = rope.width / 2, .step = halves ? 1 : 2, .apart = halves ? rope.width / 2 : 1};
  }

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const float* row_angles = angles + std::int64_t{block.index()} * 2 * pairs;
    float* row = heads + std::int64_t{block.index()} * count * head_dim;
    for (int at = block.thread(); at < count * pairs; at += block.threads()) {
      const int pair = at % pairs;
      float* first = row + at / pairs * head_dim + pair * step;
      const float cosine = row_angles[2 * pair];
      const float sine = row_angles[2 * pair + 1];
      const float turned = first[0] * cosine - first[apart] * sine;
      first[apart] = first[0] * sine + first[apart] * cosine;
      first[0] = turned;
    }
  }
};

/// gate = silu(gate) * up. Grid: blocks of kThreads numbers.
struct Activate {
  static constexpr int kThreads = 256;
  float* gate = nullptr;
  const float* up = nullptr;
  std::int64_t count = 0;

  gpu::Grid grid() const { return {static_cast<int>((count + kThreads - 1) / kThreads), 0}; }

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const std::int64_t at = std::int64_t{block.index()} * kThreads + block.thread();
    if (at >= count) return;
    gate[at] = gate[at] / (1.0F + std::exp(-gate[at])) * up[at];
  }
};

}  // namespace kvast::decoder::gpu_kernels
