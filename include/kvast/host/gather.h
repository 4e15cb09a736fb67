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
  write_numbers(view, token * view.token_stride + head * view.head_stride, dim, from);
}

/// Decoded keys and values of one head, in order of position: row t of `keys` and `values` is the
/// t-th oldest live token. Either may have null data. Keys are as they arrived, but under compacted
/// positions rotated by their slot. `levels`: unrotated positions, else null.
inline void export_head(const LayerPlan& plan, const Head& head, int head_index,
                        const OutputView& keys, const OutputView& values,
                        std::span<const Place> order, const RopeLevels* levels,
                        std::vector<float>& scratch) {
  detail::BlockReader reader(plan, head, scratch);
  float key[512];
  float value[512];
  for (std::size_t token = 0; token < order.size(); ++token) {
    const int index = order[token].slot / kBlockTokens;
    const int slot = order[token].slot % kBlockTokens;
    reader.read(head.block(index), index < head.coded.count, true);
    reader.vectors(head_index, slot, key, value);
    if (levels != nullptr && !plan.reconstructs) levels->undo(key, order[token].position);
    if (keys.data != nullptr)
      write_vector(keys, static_cast<int>(token), head_index, plan.shape.head_dim, key);
    if (values.data != nullptr)
      write_vector(values, static_cast<int>(token), head_index, plan.shape.values(), value);
  }
}

/// For engines that keep K and V themselves: row t of `to` becomes row `tokens[t]` of `from`, for
/// one head. `from` and `to` are [tokens, heads, dim]; token_stride must be given, head_stride 0
/// means dim. They must not overlap. Where a view knows its size, rows beyond it are refused.
inline void gather(std::span<const int> tokens, View from, int head, int dim, OutputView to,
                   Caller caller = Caller::here()) {
  require(dim >= 1 && dim <= 512, caller, "gather: dim is ", dim, ", must lie in [1, 512]");
  require(head >= 0 && head < (1 << 20), caller, "gather: head is ", head,
          ", must lie in [0, 2^20)");
  const auto check = [&](const char* name, auto& view, std::int64_t last_token) {
    require(view.data != nullptr, caller, "gather: ", name, " must not be null");
    if (view.head_stride == 0) view.head_stride = dim;
    require(view.token_stride > 0 && view.head_stride > 0 && view.token_stride <= kMostStride &&
                view.head_stride <= kMostStride,
            caller, "gather: ", name, ": strides are ", view.token_stride, " and ",
            view.head_stride, ", must lie in [1, 2^40]");
    const std::int64_t needed = last_token * view.token_stride + head * view.head_stride + dim;
    require(view.elements < 0 || view.elements >= needed, caller, "gather: ", name, " has ",
            view.elements, " elements, row ", last_token, " of head ", head, " needs ", needed);
  };
  int last = 0;
  for (const int token : tokens) {
    require(token >= 0 && token < (1 << 20), caller, "gather: tokens holds ", token,
            ", must lie in [0, 2^20)");
    last = std::max(last, token);
  }
  check("from", from, last);
  check("to", to, std::max<std::int64_t>(std::ssize(tokens) - 1, 0));
  float row[512];
  for (std::size_t token = 0; token < tokens.size(); ++token) {
    read_vector(from, tokens[token], head, dim, row);
    write_vector(to, static_cast<int>(token), head, dim, row);
  }
}

}  // namespace kvast
