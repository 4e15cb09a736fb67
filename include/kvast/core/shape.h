// SPDX-License-Identifier: Apache-2.0
// The shape of a model's attention, one for all layers or one per run of layers.
#pragma once

#include <vector>

#include "kvast/core/error.h"

namespace kvast {

inline constexpr int kBlockTokens =
    32;  ///< slots in a block; also the width of a quantisation group

/// Attention of `layers` consecutive, equal layers.
struct Shape {
  static constexpr int kMostDim = 512;  ///< features

  int layers = 1;
  int query_heads = 1;  ///< Q, a multiple of heads
  int heads = 1;        ///< H, kv heads
  int head_dim = 0;     ///< D, features per key: a multiple of 8 up to 512
  int value_dim = 0;    ///< features per value; 0: as head_dim

  int group() const { return query_heads / heads; }
  int values() const { return value_dim == 0 ? head_dim : value_dim; }
};

/// One Shape per layer, from one Shape or from several runs of layers, in order.
class ShapeList {
 public:
  ShapeList(const Shape& shape, Caller caller = Caller::here()) { add(shape, caller); }
  ShapeList(const std::vector<Shape>& runs, Caller caller = Caller::here()) {
    require(!runs.empty(), caller, "shape: at least one layer is needed");
    for (const Shape& run : runs) add(run, caller);
  }

  int layers() const { return static_cast<int>(shapes_.size()); }
  const Shape& operator[](int layer) const { return shapes_[static_cast<std::size_t>(layer)]; }

 private:
  static bool valid_dim(int dim) { return dim >= 8 && dim <= Shape::kMostDim && dim % 8 == 0; }

  void add(const Shape& run, Caller caller) {
    require(run.layers >= 1 && run.layers <= 4096, caller, "shape.layers is ", run.layers,
            ", must lie in [1, 4096]");
    require(run.heads >= 1 && run.heads <= 4096, caller, "shape.heads is ", run.heads,
            ", must lie in [1, 4096]");
    require(run.query_heads >= run.heads && run.query_heads % run.heads == 0, caller,
            "shape.query_heads is ", run.query_heads, ", must be a multiple of shape.heads, ",
            run.heads);
    require(run.query_heads <= 4096, caller, "shape.query_heads is ", run.query_heads,
            ", must be at most 4096");
    require(valid_dim(run.head_dim), caller, "shape.head_dim is ", run.head_dim,
            ", must be a multiple of 8 in [8, 512]");
    require(run.value_dim == 0 || valid_dim(run.value_dim), caller, "shape.value_dim is ",
            run.value_dim, ", must be 0 or a multiple of 8 in [8, 512]");
    require(layers() + run.layers <= 4096, caller, "shape: more than 4096 layers");
    Shape one = run;
    one.layers = 1;
    shapes_.insert(shapes_.end(), static_cast<std::size_t>(run.layers), one);
  }

  std::vector<Shape> shapes_;
};

}  // namespace kvast
