// SPDX-License-Identifier: Apache-2.0
// fold: the value basis as part of a model's output projection, so that attend need not lift.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/core/basis.h"
#include "kvast/core/shape.h"

namespace kvast {

/// For EigenLowRank::folded: `projection` [rows, Q * Dv] becomes [rows, Q * rank], by which the
/// engine multiplies what attend then gives, [n, Q, rank]. `basis` is KVCache::value_basis of the
/// layer whose shape and projection these are.
inline std::vector<float> fold_output(std::span<const float> projection, int rows,
                                      const Shape& shape, const Basis& basis,
                                      Caller caller = Caller::here()) {
  const auto dim = static_cast<std::size_t>(shape.values());
  const auto rank = static_cast<std::size_t>(basis.rank());
  const auto heads = static_cast<std::size_t>(shape.query_heads);
  require(basis.dim() == shape.values(), caller, "fold_output: the basis is of ", basis.dim(),
          " features, the shape's values have ", shape.values());
  require(rows >= 1 && projection.size() == static_cast<std::size_t>(rows) * heads * dim, caller,
          "fold_output: projection has ", projection.size(), " elements, [", rows, ", ", heads,
          " * ", dim, "] has ", static_cast<std::size_t>(std::max(rows, 0)) * heads * dim);
  std::vector<float> folded;
  folded.reserve(static_cast<std::size_t>(rows) * heads * rank);
  float numbers[512];
  for (std::size_t at = 0; at < projection.size(); at += dim) {
    const int query_head = static_cast<int>(at / dim % heads);
    std::copy_n(projection.begin() + static_cast<std::ptrdiff_t>(at), dim, numbers);
    basis.apply(query_head / shape.group(), numbers);
    folded.insert(folded.end(), numbers, numbers + rank);
  }
  return folded;
}

}  // namespace kvast
