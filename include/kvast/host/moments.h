// SPDX-License-Identifier: Apache-2.0
// Mean and covariance of a prompt's queries before rotation, for policies that expect more of the
// same.
#pragma once

#include <span>
#include <vector>

#include "kvast/core/executor.h"
#include "kvast/core/rope.h"
#include "kvast/core/shape.h"
#include "kvast/host/append.h"

namespace kvast {

/// Of one layer, per query head.
struct QueryMoments {
  std::vector<float> means;        ///< [query_heads, head_dim]
  std::vector<float> covariances;  ///< [query_heads, head_dim, head_dim], divided by the count
};

/// Moments of `scale` times the queries at positions from `first` on (of all, where none is so
/// late). `rope` is the rotation that they came with; empty: none.
inline void take_moments(const Shape& shape, const View& queries, float scale,
                         std::span<const int> positions, int first, const Rope& rope,
                         const Executor& executor, QueryMoments& moments) {
  const auto dim = static_cast<std::size_t>(shape.head_dim);
  const auto heads = static_cast<std::size_t>(shape.query_heads);
  moments.means.resize(heads * dim);
  moments.covariances.resize(heads * dim * dim);
  std::size_t begin = 0;
  while (begin < positions.size() && positions[begin] < first) ++begin;
  if (begin == positions.size()) begin = 0;
  const std::size_t count = positions.size() - begin;
  const auto width = static_cast<std::size_t>(rope.width);
  std::vector<float> angles(count * width);
  for (std::size_t row = 0; row < count; ++row)
    angles_at(rope, positions[begin + row], angles.data() + row * width);
  executor.parallel_for(shape.query_heads, [&](int head) {
    std::vector<float> rows(count * dim);
    std::vector<double> sums(dim, 0.0);
    for (std::size_t row = 0; row < count; ++row) {
      float* to = rows.data() + row * dim;
      read_vector(queries, static_cast<int>(begin + row), head, shape.head_dim, to);
      if (!rope.empty())
        turn(rope, angles.data() + row * width, -1.0F / rope.scale, 1.0F / rope.scale, to);
      for (std::size_t at = 0; at < dim; ++at) {
        to[at] *= scale;
        sums[at] += static_cast<double>(to[at]);
      }
    }
    float* means = moments.means.data() + static_cast<std::size_t>(head) * dim;
    for (std::size_t at = 0; at < dim; ++at)
      means[at] = static_cast<float>(sums[at] / static_cast<double>(count));
    std::vector<double> products(dim * dim, 0.0);
    for (std::size_t row = 0; row < count; ++row) {
      float* from = rows.data() + row * dim;
      for (std::size_t at = 0; at < dim; ++at) from[at] -= means[at];
      for (std::size_t left = 0; left < dim; ++left) {
        const auto factor = static_cast<double>(from[left]);
        double* to = products.data() + left * dim;
        for (std::size_t right = 0; right < dim; ++right)
          to[right] += factor * static_cast<double>(from[right]);
      }
    }
    float* covariance = moments.covariances.data() + static_cast<std::size_t>(head) * dim * dim;
    for (std::size_t at = 0; at < dim * dim; ++at)
      covariance[at] = static_cast<float>(products[at] / static_cast<double>(count));
  });
}

}  // namespace kvast
