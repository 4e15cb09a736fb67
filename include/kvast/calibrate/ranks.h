// SPDX-License-Identifier: Apache-2.0
// How many directions each layer keeps: by energy, by what an error costs, or by bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvast/calibrate/calibration.h"

namespace kvast {

/// Coordinates kept per key and per value of a layer, all heads alike: multiples of 8, so that rows
/// fill units of codes.
struct LayerRanks {
  int keys = 0;
  int values = 0;
};
using Ranks = std::vector<LayerRanks>;  ///< [layers]

inline constexpr int kRankStep = 8;

/// What a share of energy is a share of.
enum class Energy : std::uint8_t {
  squares,    ///< squared singular values: what the paper's text means by energy
  magnitudes  ///< singular values: what the paper's code sums up
};

namespace detail {

/// The smallest rank whose directions have a `share` of a layer's energy in every head, rounded up.
inline int rank_of_energy(const Directions& directions, double share, Energy energy) {
  int most = kRankStep;
  for (int head = 0; head < directions.heads; ++head) {
    const auto weight = [&](int at) {
      const double square = directions.energy(head, at);
      return energy == Energy::squares ? square : std::sqrt(square);
    };
    double total = 0.0;
    for (int at = 0; at < directions.dim; ++at) total += weight(at);
    double sum = 0.0;
    int rank = 0;
    while (rank < directions.dim && sum < share * total * (1.0 - 1e-12)) sum += weight(rank++);
    most = std::max(most, (rank + kRankStep - 1) / kRankStep * kRankStep);
  }
  return std::min(most, directions.dim);
}

inline LayerRanks ranks_of_layer(const LayerDirections& layer, double share, Energy energy) {
  return {rank_of_energy(layer.keys, share, energy), rank_of_energy(layer.values, share, energy)};
}

inline LayerRanks full_ranks(const LayerDirections& layer) {
  return {layer.keys.dim, layer.values.dim};
}

}  // namespace detail

/// The same rank everywhere, at most the layer's own. Throws Error where `rank` is no multiple of
/// 8, or exceeds every layer.
inline Ranks uniform_ranks(const Calibration& calibration, int rank,
                           Caller caller = Caller::here()) {
  check_calibration(calibration, caller);
  int most = 0;
  for (const LayerDirections& layer : calibration.layers)
    most = std::max({most, layer.keys.dim, layer.values.dim});
  require(rank >= kRankStep && rank <= most && rank % kRankStep == 0, caller, "rank is ", rank,
          ", must be a multiple of 8 in [8, ", most, "]");
  Ranks ranks;
  for (const LayerDirections& layer : calibration.layers)
    ranks.push_back({std::min(rank, layer.keys.dim), std::min(rank, layer.values.dim)});
  return ranks;
}

/// Per layer the smallest ranks that keep a `share` in (0, 1] of the energy. Ref: Eigen Attention,
/// arXiv:2408.05646, §3.2; its code stops one direction earlier.
inline Ranks ranks_by_energy(const Calibration& calibration, double share,
                             Energy energy = Energy::squares, Caller caller = Caller::here()) {
  check_calibration(calibration, caller);
  require(share > 0.0 && share <= 1.0, caller, "energy is ", share, ", must lie in (0, 1]");
  Ranks ranks;
  for (const LayerDirections& layer : calibration.layers)
    ranks.push_back(detail::ranks_of_layer(layer, share, energy));
  return ranks;
}

/// How ranks_by_error searches.
struct ErrorSearch {
  double step = 0.02;         ///< by which the share of energy falls
  double least_share = 0.45;  ///< of full rank, below which no rank falls
  Energy energy = Energy::squares;
};

/// Per layer the smallest ranks, on the way down, whose error stays below `budget`: the last that
/// passed, where the paper's code gives up one more. `error(layer, ranks)` is the relative error of
/// the layer's output with these ranks; it is asked for smaller and smaller ones. Ref: Eigen
/// Attention, arXiv:2408.05646, Algorithm 1.
template <class Measure>
Ranks ranks_by_error(const Calibration& calibration, double budget, Measure&& error,
                     const ErrorSearch& search = {}, Caller caller = Caller::here()) {
  check_calibration(calibration, caller);
  require(budget > 0.0 && std::isfinite(budget), caller, "budget is ", budget,
          ", must be positive and finite");
  require(search.step >= 1e-4 && search.step < 1.0, caller, "step is ", search.step,
          ", must lie in [1e-4, 1)");
  require(search.least_share >= 0.0 && search.least_share <= 1.0, caller, "least_share is ",
          search.least_share, ", must lie in [0, 1]");
  Ranks ranks;
  for (std::size_t index = 0; index < calibration.layers.size(); ++index) {
    const LayerDirections& layer = calibration.layers[index];
    LayerRanks passed = detail::full_ranks(layer);
    for (int turn = 0; 1.0 - turn * search.step > 0.0; ++turn) {
      const LayerRanks next =
          detail::ranks_of_layer(layer, 1.0 - turn * search.step, search.energy);
      if (next.keys < search.least_share * layer.keys.dim ||
          next.values < search.least_share * layer.values.dim)
        break;
      if (next.keys == passed.keys && next.values == passed.values) continue;
      if (!(error(static_cast<int>(index), next) < budget)) break;
      passed = next;
    }
    ranks.push_back(passed);
  }
  return ranks;
}

/// Spends `bytes` per token (keys and values of all layers and heads together, at `bytes_each` per
/// number) where they gain most: 8 coordinates more for the keys or values of the layer in which
/// they add the largest share of energy per number. At least 8 everywhere. Ties: the earlier layer,
/// keys before values.
inline Ranks ranks_by_bytes(const Calibration& calibration, double bytes, double bytes_each = 2.0,
                            Caller caller = Caller::here()) {
  check_calibration(calibration, caller);
  require(bytes >= 0.0 && bytes < 1e15 && bytes_each > 1e-3, caller, "ranks_by_bytes: bytes is ",
          bytes, " at ", bytes_each, " per number, must be finite and positive");
  struct Spent {
    const Directions* directions;
    int heads;  ///< that a coordinate is stored for
    int rank = kRankStep;
    double gain = -1.0;  ///< of the next step, per number
  };
  std::vector<Spent> all;
  const auto numbers = static_cast<std::int64_t>(bytes / bytes_each + 1e-9);
  std::int64_t left = numbers;
  for (std::size_t index = 0; index < calibration.layers.size(); ++index) {
    const int heads = calibration.shapes[index].heads;
    all.push_back({&calibration.layers[index].keys, heads});
    all.push_back({&calibration.layers[index].values, heads});
    left -= std::int64_t{2} * kRankStep * heads;
  }
  require(left >= 0, caller, "ranks_by_bytes: ", bytes, " bytes per token hold ", numbers,
          " numbers, rank 8 everywhere needs ", numbers - left);
  const auto look = [](Spent& spent) {
    const Directions& directions = *spent.directions;
    spent.gain = -1.0;
    if (spent.rank >= directions.dim) return;
    double gain = 0.0;
    for (int head = 0; head < directions.heads; ++head) {
      double total = 0.0;
      double step = 0.0;
      for (int at = 0; at < directions.dim; ++at) {
        total += directions.energy(head, at);
        if (at >= spent.rank && at < spent.rank + kRankStep) step += directions.energy(head, at);
      }
      if (total > 0.0) gain += step / total;
    }
    spent.gain = gain / directions.heads / spent.heads;
  };
  for (Spent& spent : all) look(spent);
  for (;;) {
    Spent* best = nullptr;
    for (Spent& spent : all) {
      if (spent.gain < 0.0 || kRankStep * spent.heads > left) continue;
      if (best == nullptr || spent.gain > best->gain) best = &spent;
    }
    if (best == nullptr) break;
    best->rank += kRankStep;
    left -= std::int64_t{kRankStep} * best->heads;
    look(*best);
  }
  Ranks ranks;
  for (std::size_t index = 0; index < all.size(); index += 2)
    ranks.push_back({all[index].rank, all[index + 1].rank});
  return ranks;
}

}  // namespace kvast
