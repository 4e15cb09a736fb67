// SPDX-License-Identifier: Apache-2.0
// EigenLowRank<S> and LoRC<S>: keys and values are kept as coordinates in the directions that they
// mostly have.
#pragma once

#include <memory>
#include <string>
#include <tuple>

#include "kvast/calibrate/ranks.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// Another storage that keeps only the leading coordinates of keys and values, of each layer as
/// many as `ranks` says; a layer of full rank keeps vectors as they are. Queries are projected, and
/// the output is lifted once per query head. Ref: Eigen Attention, arXiv:2408.05646.
template <class Inner>
struct EigenLowRank : Inner {
  std::shared_ptr<const Calibration> calibration{};  ///< of this model; must not be null
  Ranks ranks{};                                     ///< [layers] see calibrate/ranks.h
  /// The output stays in the value basis, [n, Q, rank of values]: for engines that fold the basis
  /// into their output projection (fold_output).
  bool folded = false;

  template <class Simd>
  StoragePlan plan(int layer) const {
    const auto at = static_cast<std::size_t>(layer);
    const LayerDirections& directions = calibration->layers[at];
    StoragePlan plan = Inner::template plan<Simd>(layer);
    require(plan.key_basis.directions == nullptr && plan.value_basis.directions == nullptr,
            Caller::here(),
            "EigenLowRank: the storage underneath is of low rank already; give one");
    if (ranks[at].keys < directions.keys.dim) {
      plan.key_basis.directions = directions.keys.leading(ranks[at].keys);
      plan.before_rope = calibration->before_rope;
    }
    if (ranks[at].values < directions.values.dim)
      plan.value_basis.directions = directions.values.leading(ranks[at].values);
    plan.folded = folded;
    return plan;
  }
  void validate(Caller caller) const {
    Inner::validate(caller);
    require(calibration != nullptr, caller, "EigenLowRank.calibration must not be null");
    check_calibration(*calibration, caller);
    require(ranks.size() == calibration->layers.size(), caller, "EigenLowRank.ranks has ",
            ranks.size(), " layers, its calibration ", calibration->layers.size());
    for (std::size_t layer = 0; layer < ranks.size(); ++layer) {
      const LayerDirections& directions = calibration->layers[layer];
      for (const auto& [name, rank, dim] :
           {std::tuple("keys", ranks[layer].keys, directions.keys.dim),
            std::tuple("values", ranks[layer].values, directions.values.dim)}) {
        require(rank >= kRankStep && rank <= dim && rank % kRankStep == 0, caller,
                "EigenLowRank.ranks[", layer, "].", name, " is ", rank,
                ", must be a multiple of 8 in [8, ", dim, "]");
      }
    }
  }
  /// Refuses a model of another shape, naming both.
  void validate_shape(const ShapeList& shape, Caller caller) const {
    if constexpr (requires { Inner::validate_shape(shape, caller); })
      Inner::validate_shape(shape, caller);
    const std::string mismatch = calibration_mismatch(*calibration, shape);
    require(mismatch.empty(), caller, "EigenLowRank: ", mismatch);
  }
};

/// The same with a calibration of the model's weights, and ranks that fall over the depth: see
/// calibrate_weights and progressive_ranks. Ref: LoRC, arXiv:2410.03111.
template <class Inner>
using LoRC = EigenLowRank<Inner>;

}  // namespace kvast
