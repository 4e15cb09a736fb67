// SPDX-License-Identifier: Apache-2.0
// Layer schedules of the literature that are computed from a prompt or from its attention, as
// budgets for PerLayerBudget.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <span>
#include <vector>

#include "kvast/policy/layer_budgets.h"

namespace kvast {

/// PyramidInfer's ratios, which compound from layer to layer: layer l keeps (1 - p)(cos(pi l / L) +
/// 1) / 2 + p of what the layer before it kept, rounded down, every `interval` layers, and never
/// fewer than `least`. Ref: PyramidInfer, arXiv:2405.12532, §4. (The method also spares the
/// computation of what it drops; a cache cannot.)
inline LayerBudgets pyramid_infer(int layers, int prompt, double p = 0.9, int interval = 1,
                                  int least = 64, Caller caller = Caller::here()) {
  require(layers >= 1 && layers <= LayerBudgets::kMost, caller, "pyramid_infer: layers is ", layers,
          ", must lie in [1, ", LayerBudgets::kMost, "]");
  require(prompt >= 1, caller, "pyramid_infer: prompt is ", prompt, ", must be at least 1");
  require(p > 0.0 && p <= 1.0, caller, "pyramid_infer: p is ", p, ", must lie in (0, 1]");
  require(interval >= 1, caller, "pyramid_infer: interval is ", interval, ", must be at least 1");
  require(least >= 1, caller, "pyramid_infer: least is ", least, ", must be at least 1");
  LayerBudgets budgets{.layers = layers};
  int kept = prompt;
  for (int layer = 0; layer < layers; ++layer) {
    if (layer % interval == 0) {
      const double part = (1.0 - p) * (std::cos(std::numbers::pi * layer / layers) + 1.0) / 2.0 + p;
      kept = std::max(std::min(least, kept), static_cast<int>(std::floor(part * kept + 1e-9)));
    }
    budgets.tokens[layer] = kept;
  }
  return budgets;
}

/// PrefixKV's budgets: one level of retained attention for all layers, such that the total is
/// mean * layers exactly. `masses` is [layers][tokens], attention per token summed over heads and
/// queries of a calibration text (any order, any unit). Ref: PrefixKV, arXiv:2412.03409, §3; its
/// binary search stops within five tokens, taking the cheapest steps in order does not need one.
inline LayerBudgets prefix_kv(std::span<const std::vector<float>> masses, int mean,
                              Caller caller = Caller::here()) {
  const int layers = static_cast<int>(masses.size());
  require(layers >= 1 && layers <= LayerBudgets::kMost, caller, "prefix_kv: masses has ", layers,
          " layers, must lie in [1, ", LayerBudgets::kMost, "]");
  require(mean >= 1, caller, "prefix_kv: mean is ", mean, ", must be at least 1");
  struct Step {
    double level;  ///< mass that the layer has retained before it
    int layer;
  };
  std::vector<Step> steps;
  for (int layer = 0; layer < layers; ++layer) {
    std::vector<float> sorted = masses[static_cast<std::size_t>(layer)];
    double total = 0.0;
    for (const float mass : sorted) {
      require(is_finite(static_cast<double>(mass)) && mass >= 0.0F, caller,
              "prefix_kv: masses of layer ", layer, " hold ", mass,
              ", must be finite and at least 0");
      total += static_cast<double>(mass);
    }
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double retained = 0.0;
    for (const float mass : sorted) {
      // a layer keeps one token at least, even where its attention is zero
      const bool first = steps.empty() || steps.back().layer != layer;
      steps.push_back({total > 0.0 ? retained / total : first ? 0.0 : 1.0, layer});
      retained += static_cast<double>(mass);
    }
  }
  require(static_cast<std::int64_t>(mean) * layers <= std::ssize(steps), caller,
          "prefix_kv: mean is ", mean, ", and masses has only ", std::ssize(steps), " tokens for ",
          layers, " layers");
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Step& left, const Step& right) { return left.level < right.level; });
  LayerBudgets budgets{.layers = layers};
  for (int step = 0; step < mean * layers; ++step)
    ++budgets.tokens[steps[static_cast<std::size_t>(step)].layer];
  return budgets;
}

}  // namespace kvast
