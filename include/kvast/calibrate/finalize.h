// SPDX-License-Identifier: Apache-2.0
// finalize: second moments become directions, the strongest first.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvast/calibrate/calibration.h"
#include "kvast/calibrate/moments.h"

namespace kvast {

namespace detail {

/// Eigenvectors of symmetric `moments` (lower triangles), divided by `count`. A direction's largest
/// component is positive, so that equal moments give equal bytes.
inline Directions directions_of(const std::vector<Eigen::MatrixXd>& moments, double count) {
  const int dim = static_cast<int>(moments[0].rows());
  Directions found{
      .heads = static_cast<int>(moments.size()), .dim = dim, .energies = {}, .vectors = {}};
  for (const Eigen::MatrixXd& moment : moments) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(moment);
    Eigen::MatrixXd vectors = solver.eigenvectors().rowwise().reverse();  // it sorts ascending
    for (int at = 0; at < dim; ++at) {
      int largest = 0;
      for (int row = 1; row < dim; ++row)
        if (std::abs(vectors(row, at)) > std::abs(vectors(largest, at))) largest = row;
      if (vectors(largest, at) < 0.0) vectors.col(at) *= -1.0;
      found.energies.push_back(std::max(solver.eigenvalues()[dim - 1 - at], 0.0) / count);
    }
    for (int row = 0; row < dim; ++row) {
      for (int at = 0; at < dim; ++at)
        found.vectors.push_back(static_cast<float>(vectors(row, at)));
    }
  }
  return found;
}

}  // namespace detail

/// The directions of what `moments` saw. Throws Error where a layer saw fewer tokens than its
/// vectors have features, which leaves directions unknown.
inline Calibration finalize(const Moments& moments, Caller caller = Caller::here()) {
  Calibration calibration{.shapes = moments.shapes(),
                          .before_rope = moments.options().before_rope,
                          .tokens = moments.tokens(0),
                          .layers = {}};
  const int layers = static_cast<int>(calibration.shapes.size());
  for (int layer = 0; layer < layers; ++layer) {
    const Shape& shape = calibration.shapes[static_cast<std::size_t>(layer)];
    const int least = std::max(shape.head_dim, shape.values());
    require(moments.tokens(layer) >= least, caller, "finalize: layer ", layer, " saw ",
            moments.tokens(layer), " tokens, must see at least head_dim = ", least);
  }
  for (int layer = 0; layer < layers; ++layer) {
    const auto count = static_cast<double>(moments.tokens(layer));
    calibration.layers.push_back({detail::directions_of(moments.keys(layer), count),
                                  detail::directions_of(moments.values(layer), count)});
  }
  return calibration;
}

}  // namespace kvast
