// SPDX-License-Identifier: Apache-2.0
// Calibration: the directions in which a model's keys and values lie, layer by layer.
#pragma once

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
