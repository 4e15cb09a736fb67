// SPDX-License-Identifier: Apache-2.0
// Budgets that differ by layer, with an exact total: schedules of the literature, and wrappers that
// follow them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "kvast/core/apportion.h"
#include "kvast/core/check_policy.h"

namespace kvast {

/// Tokens per head for each layer, small enough to travel into a kernel.
struct LayerBudgets {
  static constexpr int kMost = 256;
  static constexpr int kMostTokens = 1 << 22;  ///< a layer's mean
  int layers = 0;
  std::array<int, kMost> tokens{};

  /// `mean * layers` tokens, split by `shares` with a largest remainder, each layer at least
  /// `least`. Throws Error where that cannot be.
  static LayerBudgets split(std::span<const double> shares, int mean, int least,
                            Caller caller = Caller::here()) {
    const int layers = static_cast<int>(shares.size());
    require(layers >= 1 && layers <= kMost, caller, "LayerBudgets: shares has ", layers,
            " layers, must lie in [1, ", kMost, "]");
    require(least >= 1, caller, "LayerBudgets: least is ", least, ", must be at least 1");
    require(mean >= least && mean <= kMostTokens, caller, "LayerBudgets: mean is ", mean,
            ", must lie in [least, 2^22], [", least, ", ", kMostTokens, "]");
    for (const double share : shares)
      require(share >= 0.0 && std::isfinite(share), caller, "LayerBudgets: a share is ", share,
              ", must be finite and at least 0");
    LayerBudgets budgets{.layers = layers};
    const std::vector<int> most(shares.size(), 1 << 30);
    const auto parts = std::span(budgets.tokens).first(shares.size());
    apportion(shares, mean * layers, most, parts);
    for (int& part : parts) {
      for (; part < least; ++part) --*std::max_element(parts.begin(), parts.end());
    }
    return budgets;
  }
  /// Straight from `steepness` times the mean in one end layer down to what keeps the total, in the
  /// other: in (0, 2); above 1 the first layers have more (pyramid), below 1 the last (funnel).
  static LayerBudgets slope(int layers, int mean, double steepness, int least = 1,
                            Caller caller = Caller::here()) {
    require(steepness > 0.0 && steepness < 2.0, caller, "LayerBudgets: steepness is ", steepness,
            ", must lie in (0, 2)");
    std::vector<double> shares;
    for (int layer = 0; layer < layers; ++layer) {
      const double way = layers == 1 ? 0.5 : layer / static_cast<double>(layers - 1);
      shares.push_back(steepness + (2.0 - 2.0 * steepness) * way);
    }
    return split(shares, mean, least, caller);
  }
};

/// PyramidKV's schedule: what is kept besides the window falls along a line from 2 b - b / beta to
/// b / beta, b = mean - window. The total is mean * layers exactly; the authors' integer steps
/// overshoot by up to 27 %. Ref: PyramidKV, arXiv:2406.02069, §4.2.
inline LayerBudgets pyramid(int layers, int mean, int window, double beta = 20.0,
                            Caller caller = Caller::here()) {
  require(beta >= 1.0 && beta <= 1e6, caller, "pyramid: beta is ", beta, ", must lie in [1, 10^6]");
  require(window >= 0 && mean > window, caller, "pyramid: mean is ", mean, ", must exceed window, ",
          window);
  LayerBudgets past = LayerBudgets::slope(layers, mean - window, 2.0 - 1.0 / beta, 1, caller);
  for (int layer = 0; layer < layers; ++layer)
    past.tokens[static_cast<std::size_t>(layer)] += window;
  return past;
}

/// PyramidKV's schedule as kvpress 0.5.5 has it, for one layer: the window lies inside of the
/// counts, each is rounded alone, and where the last layer would keep less than the window all
/// layers keep the mean. `mean` need not be whole.
inline int kvpress_pyramid(Layer layer, int prompt, double mean, int window, double beta) {
  double least = mean / beta;
  double most = 2.0 * mean - least;
  const double past = static_cast<double>(prompt - window);
  if (most >= past) {
    most = past;
    least = 2.0 * mean - most;
  }
  const bool slopes = prompt >= most && most >= least && least >= window && layer.layers > 1;
  const double step = slopes ? (most - least) / (layer.layers - 1) : 0.0;
  const double count = slopes ? most - layer.index * step : mean;
  return std::max(1, static_cast<int>(std::nearbyint(count)));
}

/// Scissorhands' observation: importance persists less in later layers, so they have more.
/// `first` is the first layer's part of the mean, in (0, 1].
inline LayerBudgets funnel(int layers, int mean, double first = 0.5,
                           Caller caller = Caller::here()) {
  require(first > 0.0 && first <= 1.0, caller, "funnel: first is ", first, ", must lie in (0, 1]");
  return LayerBudgets::slope(layers, mean, first, 1, caller);
}

/// Another policy with a budget for each layer in place of its own. Layers in which it has none
/// (L2Norm.skip) keep everything.
template <class Inner>
struct PerLayerBudget : Inner {
  static_assert(!detail::Composite<Inner>,
                "PerLayerBudget: wrap the parts of a policy made of others, not the whole");
  static_assert(detail::HasBudget<Inner>, "PerLayerBudget: the policy has no budget to replace");
  LayerBudgets budgets;

  Budget budget(Layer layer) const {
    const Budget inner = Inner::budget(layer);
    if (!inner.limited()) return inner;
    return {budgets.tokens[static_cast<std::size_t>(layer.index)], inner.cap};
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    const auto& inner = static_cast<const Inner&>(*this);
    detail::validate_shape(inner, shape, caller);
    require(budgets.layers == shape.layers(), caller, "PerLayerBudget.budgets has ", budgets.layers,
            " layers, the cache has ", shape.layers());
    detail::require_budget("PerLayerBudget", inner, shape.layers(), caller);
    for (int layer = 0; layer < shape.layers(); ++layer) {
      const int here = budgets.tokens[static_cast<std::size_t>(layer)];
      require(here >= 1, caller, "PerLayerBudget.budgets of layer ", layer, " is ", here,
              ", must be at least 1");
    }
  }
};

/// Another policy under PyramidKV's schedule; its budget is the mean over the layers that have one.
/// With `kvpress` it has kvpress' counts instead, which need the prompt's length and do not add up
/// exactly.
template <class Inner>
struct Pyramid : Inner {
  static_assert(!detail::Composite<Inner>,
                "Pyramid: wrap the parts of a policy made of others, not the whole");
  static_assert(detail::HasBudget<Inner>,
                "Pyramid: the policy has no budget to spread over layers");
  double beta = 20.0;  ///< steepness, in [1, 10^6]; the authors' default
  struct Kvpress {
    int prompt = 0;     ///< tokens of the prompt; 0: the paper's schedule
    double kept = 1.0;  ///< part of them that is kept, in (0, 1]
  };
  Kvpress kvpress{};

  Budget budget(Layer layer) const {
    const Budget mean = Inner::budget(layer);
    if (!mean.limited()) return mean;
    if (kvpress.prompt > 0)
      return tokens(
          kvpress_pyramid(layer, kvpress.prompt, kvpress.prompt * kvpress.kept, pinned(), beta));
    int place = 0;  // among the layers that have a budget
    int places = 0;
    for (int index = 0; index < layer.layers; ++index) {
      if (index == layer.index) place = places;
      if (Inner::budget({index, layer.layers}).limited()) ++places;
    }
    const LayerBudgets all = pyramid(places, mean.tokens, pinned(), beta);
    return {all.tokens[static_cast<std::size_t>(place)], mean.cap};
  }
  void validate(Caller caller) const {
    if constexpr (requires(const Inner& inner) { inner.validate(caller); }) Inner::validate(caller);
    require(beta >= 1.0 && beta <= 1e6, caller, "Pyramid.beta is ", beta,
            ", must lie in [1, 10^6]");
    require(kvpress.prompt >= 0 && kvpress.prompt <= (1 << 29), caller,
            "Pyramid.kvpress.prompt is ", kvpress.prompt, ", must lie in [0, 2^29]");
    require(kvpress.kept > 0.0 && kvpress.kept <= 1.0, caller, "Pyramid.kvpress.kept is ",
            kvpress.kept, ", must lie in (0, 1]");
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    const auto& inner = static_cast<const Inner&>(*this);
    detail::validate_shape(inner, shape, caller);
    require(shape.layers() <= LayerBudgets::kMost, caller, "Pyramid: the cache has ",
            shape.layers(), " layers, must have at most ", LayerBudgets::kMost);
    const int mean = detail::require_budget("Pyramid", inner, shape.layers(), caller).tokens;
    require(mean > pinned() && mean - pinned() <= LayerBudgets::kMostTokens, caller,
            "Pyramid: the budget is ", mean, ", must exceed the tokens that are always kept, ",
            pinned(), ", by at most 2^22");
  }

 private:
  int pinned() const { return detail::pins_of(static_cast<const Inner&>(*this)).count(); }
};

}  // namespace kvast
