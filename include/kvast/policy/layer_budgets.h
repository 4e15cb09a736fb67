// SPDX-License-Identifier: Apache-2.0
// Budgets that differ by layer, with an exact total: schedules of the literature, and wrappers that
// follow them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "kvast/core/apportion.h"
#include "kvast/core/check_policy.h"

#if defined(__CUDACC__)
// a wrapped policy's hook must be KVAST_HD, as its caller is
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast {

/// Tokens per head for each layer, small enough to travel into a kernel.
struct LayerBudgets {
  static constexpr int kMost = LayerSet::kMost;
  static constexpr int kMostTokens = 1 << 22;  ///< a layer's mean
  int layers = 0;
  int tokens[kMost] = {};

  /// `mean * layers` tokens, split by `shares` with a largest remainder, each layer at least
  /// `least`. Throws Error where that cannot be.
  static LayerBudgets split(std::span<const double> shares, int mean, int least,
                            Caller caller = Caller::here()) {
    const int layers = checked_layers("LayerBudgets", static_cast<int>(shares.size()), caller);
    require(least >= 1, caller, "LayerBudgets: least is ", least, ", must be at least 1");
    require(mean >= least && mean <= kMostTokens, caller, "LayerBudgets: mean is ", mean,
            ", must lie in [least, 2^22], [", least, ", ", kMostTokens, "]");
    for (const double share : shares)
      require(is_finite(share) && share >= 0.0, caller, "LayerBudgets: a share is ", share,
              ", must be finite and at least 0");
    LayerBudgets budgets{.layers = layers};
    for (int layer = 0; layer < layers; ++layer)
      budgets.tokens[layer] = part(Listed{shares.data()}, layers, mean * layers, least, layer);
    return budgets;
  }
  /// Straight from `steepness` times the mean in one end layer down to what keeps the total, in the
  /// other: in (0, 2); above 1 the first layers have more (pyramid), below 1 the last (funnel).
  static LayerBudgets slope(int layers, int mean, double steepness, int least = 1,
                            Caller caller = Caller::here()) {
    (void)checked_layers("LayerBudgets", layers, caller);
    require(steepness > 0.0 && steepness < 2.0, caller, "LayerBudgets: steepness is ", steepness,
            ", must lie in (0, 2)");
    std::array<double, kMost> shares{};
    for (int layer = 0; layer < layers; ++layer)
      shares[static_cast<std::size_t>(layer)] = Line{steepness, layers}(layer);
    return split(std::span(shares).first(static_cast<std::size_t>(layers)), mean, least, caller);
  }

  /// Shares that are given one by one.
  struct Listed {
    const double* shares = nullptr;
    KVAST_HD double operator()(int layer) const { return shares[layer]; }
  };
  /// Shares of a slope.
  struct Line {
    double steepness = 1.0;
    int layers = 1;

    KVAST_HD double operator()(int layer) const {
      const double way = layers == 1 ? 0.5 : layer / static_cast<double>(layers - 1);
      return steepness + multiply(2.0 - 2.0 * steepness, way);
    }
  };
  /// One layer's part of `total`: `least`, and of the rest by how far its share of all exceeds
  /// that. shares(layer) of each.
  template <class Shares>
  KVAST_HD static int part(const Shares& shares, int layers, int total, int least, int layer) {
    double largest = 0.0;
    for (int at = 0; at < layers; ++at) largest = most_of(largest, shares(at));
    const auto of_largest = [&](int at) {  // or huge shares would overflow
      return largest > 0.0 ? shares(at) / largest : 1.0;
    };
    double sum = 0.0;
    for (int at = 0; at < layers; ++at) sum += of_largest(at);
    const auto above = [&](int at) {
      return most_of(multiply(total, of_largest(at) / sum) - least, 0.0);
    };
    double open = 0.0;
    for (int at = 0; at < layers; ++at) open += above(at);
    if (open <= 0.0) return least;
    return least + apportioned(above, layers, total - least * layers, layer);
  }
  static int checked_layers(const char* caller_name, int layers, Caller caller) {
    require(layers >= 1 && layers <= kMost, caller, caller_name, ": there are ", layers,
            " layers, must lie in [1, ", kMost, "]");
    return layers;
  }
};

namespace detail {

/// PyramidKV's steepness for a mean of `past` tokens besides the window: no layer may have more
/// than the `room` that there is, and of a prompt shorter than the mean all are equal.
KVAST_HD inline double pyramid_steepness(double past, double room, double beta) {
  return most_of(1.0, least_of(room / past, 2.0 - 1.0 / beta));
}

}  // namespace detail

/// PyramidKV's schedule: what is kept besides the window falls along a line from 2 b - b / beta to
/// b / beta, b = mean - window; where the prompt has fewer tokens than the line begins with, from
/// those. The total is mean * layers exactly; the authors' integer steps overshoot by up to 27 %.
/// Ref: PyramidKV, arXiv:2406.02069, §4.2. `prompt`: its tokens; 0: more than the first layer
/// keeps.
inline LayerBudgets pyramid(int layers, int mean, int window, double beta = 20.0, int prompt = 0,
                            Caller caller = Caller::here()) {
  require(beta >= 1.0 && beta <= 1e6, caller, "pyramid: beta is ", beta, ", must lie in [1, 10^6]");
  require(window >= 0 && mean > window && mean <= (1 << 30), caller, "pyramid: mean is ", mean,
          ", must exceed window, ", window, ", and be at most 2^30");
  require(prompt >= 0, caller, "pyramid: prompt is ", prompt, ", must be at least 0");
  const int past = mean - window;
  const double room = prompt > 0 ? static_cast<double>(prompt) - window : 2.0 * past;
  LayerBudgets budgets =
      LayerBudgets::slope(layers, past, detail::pyramid_steepness(past, room, beta), 1, caller);
  for (int layer = 0; layer < layers; ++layer) budgets.tokens[layer] += window;
  return budgets;
}

/// PyramidKV's schedule as kvpress 0.5.5 has it, for one layer: the window lies inside of the
/// counts, each is rounded alone, and where the last layer would keep less than the window all
/// layers keep the mean. `mean` need not be whole.
KVAST_HD inline int kvpress_pyramid(Layer layer, int prompt, double mean, int window, double beta) {
  double least = mean / beta;
  double most = 2.0 * mean - least;
  const double past = static_cast<double>(prompt - window);
  if (most >= past) {
    most = past;
    least = 2.0 * mean - most;
  }
  const bool slopes = prompt >= most && most >= least && least >= window && layer.layers > 1;
  const double step = slopes ? (most - least) / (layer.layers - 1) : 0.0;
  const double count = slopes ? most - multiply(layer.index, step) : mean;
  return most_of(1, static_cast<int>(std::nearbyint(count)));
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
  static_assert(
      !requires { Inner::kSchedules; }, "PerLayerBudget: the policy has budgets by layer already");
  static constexpr bool kSchedules = true;
  static constexpr bool needs_budget = true;
  LayerBudgets budgets;

  KVAST_HD Budget budget(Layer layer) const {
    const Budget inner = Inner::budget(layer);
    if (!inner.limited()) return inner;
    return {budgets.tokens[layer.index], inner.cap};
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    const auto& inner = static_cast<const Inner&>(*this);
    detail::validate_shape(inner, shape, caller);
    require(budgets.layers == shape.layers() && budgets.layers <= LayerBudgets::kMost, caller,
            "PerLayerBudget.budgets has ", budgets.layers, " layers, the cache has ",
            shape.layers(), ", must be as many, and at most ", LayerBudgets::kMost);
    for (int layer = 0; layer < shape.layers(); ++layer) {
      const int here = budgets.tokens[layer];
      require(here >= 1, caller, "PerLayerBudget.budgets of layer ", layer, " is ", here,
              ", must be at least 1");
    }
  }
};

namespace detail {

/// A layer's place in a pyramid of the layers that take part, and what they share.
struct PyramidPlace {
  std::int64_t pinned = 0;
  int seen = 0;  ///< tokens; 0: more than any layer keeps
  int place = 0;
  int places = 0;
  std::int64_t past = 0;  ///< tokens besides the pinned ones, of all together

  KVAST_HD void add(Budget budget) {
    if (!budget.limited()) return;
    ++places;
    past += budget.tokens - pinned;
  }
  KVAST_HD bool possible() const {
    return past >= places && past <= (1 << 30) && places <= LayerBudgets::kMost;
  }
  KVAST_HD int tokens(double beta, double kvpress) const {
    const int window = static_cast<int>(pinned);
    if (kvpress > 0.0 && seen > 0)
      return kvpress_pyramid({place, places}, seen, multiply(seen, kvpress), window, beta);
    const double mean = static_cast<double>(past) / places;
    const double room = seen > 0 ? static_cast<double>(seen - window) : 2.0 * mean;
    const LayerBudgets::Line line{pyramid_steepness(mean, room, beta), places};
    return window + LayerBudgets::part(line, places, static_cast<int>(past), 1, place);
  }
};

}  // namespace detail

/// Another policy under PyramidKV's schedule, whose total is that of the policy's own budgets, over
/// the layers that it decides for and has a budget in: with PerLayer, those of the others take no
/// part. As long as fewer tokens were seen than the first layers may keep, the line is flatter.
/// With `kvpress` it has kvpress' counts instead, which do not add up exactly.
template <class Inner>
struct Pyramid : Inner {
  static_assert(!detail::Composite<Inner>,
                "Pyramid: wrap the parts of a policy made of others, not the whole");
  static_assert(detail::HasBudget<Inner>,
                "Pyramid: the policy has no budget to spread over layers");
  static_assert(
      !requires { Inner::kSchedules; }, "Pyramid: the policy has budgets by layer already");
  static constexpr bool kSchedules = true;
  static constexpr bool needs_budget = true;
  double beta = 20.0;    ///< steepness, in [1, 10^6]; the authors' default
  double kvpress = 0.0;  ///< part of the tokens seen that kvpress' schedule keeps, in place of the
                         ///< policy's budget, in (0, 1]; 0: the paper's schedule

  KVAST_HD Budget budget(Layer layer) const {
    const Budget inner = Inner::budget(layer);
    if (!inner.limited()) return inner;
    detail::PyramidPlace spread{.pinned = detail::pins_of(static_cast<const Inner&>(*this)).count(),
                                .seen = layer.seen};
    for (int index = 0; index < layer.layers; ++index) {
      if (index == layer.index) spread.place = spread.places;
      if (index != layer.index && !layer.decides(index)) continue;
      spread.add(Inner::budget(layer.at(index)));
    }
    if (!spread.possible()) return inner;  // validate_shape refuses it
    return {spread.tokens(beta, kvpress), inner.cap};
  }
  void validate(Caller caller) const {
    if constexpr (requires(const Inner& inner) { inner.validate(caller); }) Inner::validate(caller);
    require(beta >= 1.0 && beta <= 1e6, caller, "Pyramid.beta is ", beta,
            ", must lie in [1, 10^6]");
    require(kvpress >= 0.0 && kvpress <= 1.0, caller, "Pyramid.kvpress is ", kvpress,
            ", must lie in [0, 1]");
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    const auto& inner = static_cast<const Inner&>(*this);
    detail::validate_shape(inner, shape, caller);
    const int layers = shape.layers();
    require(layers <= LayerBudgets::kMost, caller, "Pyramid: the cache has ", layers,
            " layers, must have at most ", LayerBudgets::kMost);
    const std::int64_t pins = detail::pins_of(inner).count();
    for (int layer = 0; layer < layers; ++layer) {
      const Budget mean = Inner::budget({layer, layers});
      require(!mean.limited() || (mean.tokens <= (1 << 30) && mean.tokens > pins &&
                                  mean.tokens - pins <= LayerBudgets::kMostTokens),
              caller, "Pyramid: the budget of ", detail::type_name<Inner>, " is ", mean.tokens,
              ", must exceed the tokens that are always kept, ", pins,
              ", by at most 2^22, and be at most 2^30");
    }
  }
};

}  // namespace kvast

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
