// SPDX-License-Identifier: Apache-2.0
// LoRC's schedule: layers whose errors pass through more of the model keep more directions.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kvast/calibrate/ranks.h"

namespace kvast {

/// What the weights alone say of a model (calibrate_weights). A plain value: using it needs no
/// linear algebra.
struct WeightCalibration {
  Calibration calibration;  ///< its `tokens` is 0
  /// [layers] log of the product of the condition numbers of a layer's key and value projections.
  std::vector<double> log_conditions;
};

/// Ranks that fall over the depth: `most` where the condition numbers of this layer and all that
/// follow multiply to the largest product, `least` where to the smallest, and in between linear in
/// its logarithm; rounded up to multiples of 8, and at most the layer's own dimensions. Ref: LoRC,
/// arXiv:2410.03111, §3.3. Throws Error where `most` and `least` are no multiples of 8 in order.
inline Ranks progressive_ranks(const WeightCalibration& weights, int most, int least,
                               Caller caller = Caller::here()) {
  const std::vector<LayerDirections>& layers = weights.calibration.layers;
  const Ranks largest = uniform_ranks(weights.calibration, most, caller);
  require(least >= kRankStep && least <= most && least % kRankStep == 0, caller,
          "progressive_ranks: least is ", least, ", must be a multiple of 8 in [8, most = ", most,
          "]");
  require(weights.log_conditions.size() == layers.size(), caller,
          "progressive_ranks: log_conditions has ", weights.log_conditions.size(),
          " layers, the calibration ", layers.size());
  std::vector<double> products(layers.size());
  double product = 0.0;
  for (std::size_t layer = layers.size(); layer-- > 0;) {
    const double log = weights.log_conditions[layer];
    require(std::isfinite(log) && log >= 0.0, caller, "progressive_ranks: log_conditions[", layer,
            "] is ", log, ", must be finite and at least 0");
    product += log;
    products[layer] = product;
  }
  const double smallest = products.empty() ? 0.0 : products.back();
  Ranks ranks;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    // products fall from layer to layer, as no condition number is below 1
    const double range = products.front() - smallest;
    const double fallen = range > 0.0 ? (products.front() - products[layer]) / range : 0.0;
    const double wanted = most - fallen * (most - least);
    const int rank = static_cast<int>(std::ceil(wanted / kRankStep - 1e-9)) * kRankStep;
    ranks.push_back({std::min(rank, largest[layer].keys), std::min(rank, largest[layer].values)});
  }
  return ranks;
}

}  // namespace kvast
