// SPDX-License-Identifier: Apache-2.0
// Calibration: the directions in which a model's keys and values lie, layer by layer.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kvast/core/basis.h"
#include "kvast/core/error.h"
#include "kvast/core/shape.h"

namespace kvast {

/// An orthonormal basis of the whole space for each kv head of a layer, or one for all of them,
/// sorted by what the vectors have along each direction.
struct Directions {
  int heads = 0;                 ///< 1: shared by all heads
  int dim = 0;                   ///< D
  std::vector<double> energies;  ///< [heads, dim] mean square along each direction, descending
  std::vector<float> vectors;    ///< [heads, dim, dim]: column j is the j-th direction

  double energy(int head, int at) const {
    return energies[static_cast<std::size_t>(head * dim + at)];
  }
  /// Of direction `at` of [heads, dim].
  bool has_unit_length(std::size_t at) const {
    const auto width = static_cast<std::size_t>(dim);
    double square = 0.0;
    for (std::size_t row = 0; row < width; ++row) {
      const double number = vectors[(at / width * width + row) * width + at % width];
      square += number * number;
    }
    return std::abs(square - 1.0) <= 1e-3;
  }
  /// The leading `rank` of them.
  std::shared_ptr<const BasisMatrix> leading(int rank) const {
    auto matrix = std::make_shared<BasisMatrix>();
    *matrix = {.heads = heads, .dim = dim, .rank = rank, .columns = {}};
    matrix->columns.reserve(static_cast<std::size_t>(heads * dim * rank));
    for (int row = 0; row < heads * dim; ++row) {
      const auto first = vectors.begin() + static_cast<std::ptrdiff_t>(row) * dim;
      matrix->columns.insert(matrix->columns.end(), first, first + rank);
    }
    return matrix;
  }
};

struct LayerDirections {
  Directions keys;
  Directions values;
};

/// What was learnt from one model. A plain value: reading it needs no linear algebra.
struct Calibration {
  std::vector<Shape> shapes;  ///< [layers] of the model
  bool before_rope = false;   ///< keys were seen before the model rotates them
  std::int64_t tokens = 0;    ///< seen; 0: fitted to weights
  std::vector<LayerDirections> layers;
};

namespace detail {

inline std::string shape_text(const Shape& shape) {
  return join_text(shape.query_heads, " query heads on ", shape.heads, " of ", shape.head_dim,
                   " and ", shape.values(), " features");
}
inline bool same_shape(const Shape& left, const Shape& right) {
  return left.query_heads == right.query_heads && left.heads == right.heads &&
         left.head_dim == right.head_dim && left.values() == right.values();
}

}  // namespace detail

namespace detail {

inline void check_directions(const Directions& directions, int heads, int dim, int layer,
                             const char* name, Caller caller) {
  const auto fail = [&](bool holds, const auto&... why) {
    require(holds, caller, "calibration: layers[", layer, "].", name, why...);
  };
  fail(directions.heads == 1 || directions.heads == heads, ".heads is ", directions.heads,
       ", must be 1 or ", heads);
  fail(directions.dim == dim, ".dim is ", directions.dim, ", must be ", dim);
  const auto width = static_cast<std::size_t>(dim);
  const std::size_t rows = static_cast<std::size_t>(directions.heads) * width;
  fail(directions.energies.size() == rows, ".energies has ", directions.energies.size(),
       " numbers, must have ", rows);
  fail(directions.vectors.size() == rows * width, ".vectors has ", directions.vectors.size(),
       " numbers, must have ", rows * width);
  for (std::size_t at = 0; at < rows; ++at) {
    const double energy = directions.energies[at];
    fail(std::isfinite(energy) && energy >= 0.0, ".energies[", at, "] is ", energy,
         ", must be finite and at least 0");
    fail(directions.has_unit_length(at), ": direction ", at, " is not of length 1");
  }
}

}  // namespace detail

/// Throws Error, naming the layer and the part, where a calibration contradicts itself or holds
/// numbers that no fit gives: shapes and layers of different count, sizes that are not those of the
/// shape, energies or directions that are not finite, directions whose length is not 1.
inline void check_calibration(const Calibration& calibration, Caller caller = Caller::here()) {
  require(!calibration.layers.empty() && calibration.layers.size() == calibration.shapes.size(),
          caller, "calibration: it has ", calibration.layers.size(), " layers and ",
          calibration.shapes.size(), " shapes, must have as many and at least one");
  for (std::size_t layer = 0; layer < calibration.layers.size(); ++layer) {
    const Shape& shape = calibration.shapes[layer];
    const auto index = static_cast<int>(layer);
    require(shape.heads >= 1 && shape.head_dim >= 8 && shape.values() >= 8, caller,
            "calibration: shapes[", layer, "] has ", detail::shape_text(shape),
            ", must have at least 1 head of 8 features");
    detail::check_directions(calibration.layers[layer].keys, shape.heads, shape.head_dim, index,
                             "keys", caller);
    detail::check_directions(calibration.layers[layer].values, shape.heads, shape.values(), index,
                             "values", caller);
  }
}

/// Why a calibration does not belong to a model of this shape; empty: it does.
inline std::string calibration_mismatch(const Calibration& calibration, const ShapeList& model) {
  const int layers = static_cast<int>(calibration.shapes.size());
  if (layers != model.layers())
    return detail::join_text("the calibration has ", layers, " layers (",
                             layers == 0 ? "none" : detail::shape_text(calibration.shapes[0]),
                             "), the model ", model.layers(), " (", detail::shape_text(model[0]),
                             ")");
  for (int layer = 0; layer < layers; ++layer) {
    const Shape& mine = calibration.shapes[static_cast<std::size_t>(layer)];
    if (!detail::same_shape(mine, model[layer]))
      return detail::join_text("layer ", layer, " of the calibration has ",
                               detail::shape_text(mine), ", of the model ",
                               detail::shape_text(model[layer]));
  }
  return {};
}

}  // namespace kvast
