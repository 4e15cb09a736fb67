// SPDX-License-Identifier: Apache-2.0
// gather and export: tokens out of a cache, or out of the engine's own memory, as dense vectors.
#pragma once

#include <span>
#include <vector>

#include "kvast/core/view.h"
#include "kvast/host/append.h"
#include "kvast/host/encode.h"

namespace kvast {

/// Writes one vector of the caller's output. `view` has its strides filled in.
inline void write_vector(const OutputView& view, int token, int head, int dim, const float* from) {
  const std::int64_t at = token * view.token_stride + head * view.head_stride;
  for (int index = 0; index < dim; ++index) {
    if (view.type == Type::f32) {
      static_cast<float*>(view.data)[at + index] = from[index];
    } else {
      static_cast<half*>(view.data)[at + index] = to_half(from[index]);
    }
  }
}

/// Decoded keys and values of one head, in order of position: row t of `keys` and `values` is the
/// t-th oldest live token. Either may have null data. Keys are as stored: under compacted positions
/// rotated by their slot.
inline void export_head(const LayerPlan& plan, const Head& head, int head_index,
                        const OutputView& keys, const OutputView& values,
                        std::span<const Place> order, std::vector<float>& scratch) {
  detail::BlockReader reader(plan, scratch);
  float key[512];
  for (std::size_t token = 0; token < order.size(); ++token) {
    const int index = order[token].slot / kBlockTokens;
    const int slot = order[token].slot % kBlockTokens;
    reader.read(head.block(index), index < head.coded.count, true);
    reader.key(slot, key, 1);
    if (keys.data != nullptr)
      write_vector(keys, static_cast<int>(token), head_index, plan.shape.head_dim, key);
    if (values.data != nullptr)
      write_vector(values, static_cast<int>(token), head_index, plan.shape.values(),
                   reader.value(slot));
  }
}

/// For engines that keep K and V themselves: row t of `to` becomes row `tokens[t]` of `from`, for
/// one head. `from` and `to` are [tokens, heads, dim] with their strides given; they must not
/// overlap.
inline void gather(std::span<const int> tokens, const View& from, int head, int dim,
                   const OutputView& to) {
  require(from.data != nullptr && to.data != nullptr, Caller::here(),
          "gather: from and to must not be null");
  require(from.token_stride != 0 && to.token_stride != 0, Caller::here(),
          "gather: token_stride must be given");
  require(dim >= 1 && dim <= 512, Caller::here(), "gather: dim is ", dim, ", must lie in [1, 512]");
  float row[512];
  for (std::size_t token = 0; token < tokens.size(); ++token) {
    read_vector(from, tokens[token], head, dim, row);
    write_vector(to, static_cast<int>(token), head, dim, row);
  }
}

}  // namespace kvast
