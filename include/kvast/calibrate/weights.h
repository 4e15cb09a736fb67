// SPDX-License-Identifier: Apache-2.0
// calibrate_weights: directions from a model's projections alone, without a text.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "kvast/calibrate/finalize.h"
#include "kvast/calibrate/progressive.h"

namespace kvast {

/// A layer's projections of the residual stream, row by row. Views: read during the call only.
struct ProjectionWeights {
  std::span<const float> keys;    ///< [H * D, hidden]
  std::span<const float> values;  ///< [H * Dv, hidden]
  int hidden = 0;
};

namespace detail {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// W W^T of each head's rows, or of all heads added up: second moments under white inputs.
inline std::vector<Eigen::MatrixXd> weight_moments(const Eigen::MatrixXd& square, int heads,
                                                   int dim, Sharing sharing) {
  std::vector<Eigen::MatrixXd> moments;
  for (int head = 0; head < heads; ++head) {
    Eigen::MatrixXd own = square.block(head * dim, head * dim, dim, dim);
    if (sharing == Sharing::layer && head > 0) {
      moments[0] += own;
    } else {
      moments.push_back(std::move(own));
    }
  }
  return moments;
}

/// Log of largest over smallest singular value. A matrix that lacks a rank counts as if its
/// smallest were a millionth of its largest.
inline double log_condition(const Eigen::MatrixXd& square) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(square, Eigen::EigenvaluesOnly);
  const double largest = solver.eigenvalues()[square.rows() - 1];
  const double smallest = std::max(solver.eigenvalues()[0], largest * 1e-12);
  return largest > 0.0 ? 0.5 * std::log(largest / smallest) : 0.0;
}

}  // namespace detail

/// Directions of the singular value decomposition of each layer's projections, and what LoRC's
/// schedule needs to know of them. Ref: LoRC, arXiv:2410.03111, §3; there one decomposition is of
/// all heads together, here each kv head has its own (or, shared, all have one): heads may keep
/// different tokens, so that nothing can be stored for several of them at once. Throws Error for
/// weights that have other sizes than the shapes say, or are not finite.
inline WeightCalibration calibrate_weights(const ShapeList& shape,
                                           std::span<const ProjectionWeights> layers,
                                           CalibrationOptions options = {.keys = Sharing::head},
                                           Caller caller = Caller::here()) {
  require(static_cast<int>(layers.size()) == shape.layers(), caller,
          "calibrate_weights: weights are of ", layers.size(), " layers, the shape has ",
          shape.layers());
  const auto check = [&](int layer, const char* name, std::span<const float> weights, int rows,
                         int hidden) {
    require(hidden >= 1 &&
                weights.size() == static_cast<std::size_t>(rows) * static_cast<std::size_t>(hidden),
            caller, "calibrate_weights: ", name, " of layer ", layer, " have ", weights.size(),
            " elements, [", rows, ", ", hidden, "] has ", std::int64_t{rows} * hidden);
    for (const float weight : weights)
      require(std::isfinite(weight), caller, "calibrate_weights: ", name, " of layer ", layer,
              " hold ", weight, ", must be finite");
  };
  for (int layer = 0; layer < shape.layers(); ++layer) {
    const ProjectionWeights& weights = layers[static_cast<std::size_t>(layer)];
    const Shape& one = shape[layer];
    check(layer, "keys", weights.keys, one.heads * one.head_dim, weights.hidden);
    check(layer, "values", weights.values, one.heads * one.values(), weights.hidden);
  }
  WeightCalibration found;
  found.calibration.before_rope = options.before_rope;
  for (int layer = 0; layer < shape.layers(); ++layer) {
    const ProjectionWeights& weights = layers[static_cast<std::size_t>(layer)];
    const Shape& one = shape[layer];
    double log = 0.0;
    const auto directions = [&](std::span<const float> rows, int dim, Sharing sharing) {
      const Eigen::MatrixXd whole =
          Eigen::Map<const detail::RowMajor>(rows.data(), one.heads * dim, weights.hidden)
              .cast<double>();
      const Eigen::MatrixXd square = whole * whole.transpose();
      log += detail::log_condition(square);
      return detail::directions_of(detail::weight_moments(square, one.heads, dim, sharing), 1.0);
    };
    found.calibration.shapes.push_back(one);
    Directions keys = directions(weights.keys, one.head_dim, options.keys);
    Directions values = directions(weights.values, one.values(), options.values);
    found.calibration.layers.push_back({std::move(keys), std::move(values)});
    found.log_conditions.push_back(log);
  }
  return found;
}

}  // namespace kvast
