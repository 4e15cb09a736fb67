// SPDX-License-Identifier: Apache-2.0
// Second moments of a model's keys, queries and values, summed while a text runs through it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvast/calibrate/eigen.h"
#include "kvast/core/shape.h"
#include "kvast/core/view.h"
#include "kvast/host/check_pass.h"

namespace kvast {

/// Whose vectors share a basis.
enum class Sharing : std::uint8_t {
  head,  ///< each kv head has its own
  layer  ///< one for all heads of a layer
};

struct CalibrationOptions {
  /// Whether the model rotates keys after we see them. Where it does, rotation mixes what a fixed
  /// subspace keeps apart, so keys are reconstructed before it and their basis is of keys alone;
  /// where it does not, queries are projected as well, and share the basis.
  bool before_rope = true;
  Sharing keys = Sharing::layer;
  Sharing values = Sharing::head;
};

/// Sum of x x^T over the vectors of each head, or of all heads of a layer: [D, D] in double, and
/// nothing else is kept. Ref: Eigen Attention, arXiv:2408.05646, §3; its basis is the same as that
/// of the singular value decomposition of all vectors stacked.
class Moments {
 public:
  Moments(const ShapeList& shape, CalibrationOptions options, Caller caller = Caller::here())
      : options_(options) {
    (void)caller;
    for (int layer = 0; layer < shape.layers(); ++layer) {
      const Shape& one = shape[layer];
      shapes_.push_back(one);
      layers_.push_back({of(options.keys, one.heads, one.head_dim),
                         of(options.values, one.heads, one.values()), 0});
    }
  }

  /// `tokens` more tokens of a layer: `keys` [tokens, H, D] and `queries` [tokens, Q, D] as they
  /// are before rotation, `values` [tokens, H, Dv]. `queries` are read where the model does not
  /// rotate, and may else be null. Throws Error for numbers that are not finite, before anything
  /// changed.
  void add(int layer, int tokens, View keys, View queries, View values,
           Caller caller = Caller::here()) {
    require(layer >= 0 && layer < static_cast<int>(layers_.size()), caller, "calibrate: layer is ",
            layer, ", must lie in [0, ", layers_.size(), ")");
    require(tokens >= 1 && tokens <= (1 << 20), caller, "calibrate: tokens is ", tokens,
            ", must lie in [1, 2^20]");
    const Shape& shape = shapes_[static_cast<std::size_t>(layer)];
    constexpr float kMost = 3.402823466e+38F;
    const auto check = [&](const char* name, View& view, int heads, int dim) {
      detail::check_extent(name, view, tokens, heads, dim, caller);
      detail::check_numbers(name, view, tokens, heads, dim, kMost, caller);
    };
    check("calibrate: keys", keys, shape.heads, shape.head_dim);
    check("calibrate: values", values, shape.heads, shape.values());
    if (!options_.before_rope)
      check("calibrate: queries", queries, shape.query_heads, shape.head_dim);
    LayerSums& sums = layers_[static_cast<std::size_t>(layer)];
    add_rows(keys, tokens, shape.heads, shape.head_dim, 1, sums.keys);
    add_rows(values, tokens, shape.heads, shape.values(), 1, sums.values);
    if (!options_.before_rope)
      add_rows(queries, tokens, shape.query_heads, shape.head_dim, shape.group(), sums.keys);
    sums.tokens += tokens;
  }

  const std::vector<Shape>& shapes() const { return shapes_; }
  const CalibrationOptions& options() const { return options_; }
  std::int64_t tokens(int layer) const { return layers_[static_cast<std::size_t>(layer)].tokens; }
  /// [D, D] per basis, lower triangle: one per head, or one.
  const std::vector<Eigen::MatrixXd>& keys(int layer) const {
    return layers_[static_cast<std::size_t>(layer)].keys;
  }
  const std::vector<Eigen::MatrixXd>& values(int layer) const {
    return layers_[static_cast<std::size_t>(layer)].values;
  }

 private:
  struct LayerSums {
    std::vector<Eigen::MatrixXd> keys;
    std::vector<Eigen::MatrixXd> values;
    std::int64_t tokens = 0;
  };

  static std::vector<Eigen::MatrixXd> of(Sharing sharing, int heads, int dim) {
    const std::size_t count = sharing == Sharing::layer ? 1 : static_cast<std::size_t>(heads);
    return std::vector<Eigen::MatrixXd>(count, Eigen::MatrixXd::Zero(dim, dim));
  }
  /// `group` heads of the view belong to one kv head.
  static void add_rows(const View& view, int tokens, int heads, int dim, int group,
                       std::vector<Eigen::MatrixXd>& sums) {
    constexpr int kTogether = 256;
    std::vector<float> numbers(static_cast<std::size_t>(dim));
    Eigen::MatrixXd rows(dim, kTogether);
    for (int head = 0; head < heads; ++head) {
      Eigen::MatrixXd& sum =
          sums.size() == 1 ? sums[0] : sums[static_cast<std::size_t>(head / group)];
      for (int first = 0; first < tokens; first += kTogether) {
        const int count = std::min(kTogether, tokens - first);
        for (int at = 0; at < count; ++at) {
          read_vector(view, first + at, head, dim, numbers.data());
          rows.col(at) = Eigen::Map<const Eigen::VectorXf>(numbers.data(), dim).cast<double>();
        }
        sum.selfadjointView<Eigen::Lower>().rankUpdate(rows.leftCols(count));
      }
    }
  }

  std::vector<Shape> shapes_;
  CalibrationOptions options_;
  std::vector<LayerSums> layers_;
};

}  // namespace kvast
