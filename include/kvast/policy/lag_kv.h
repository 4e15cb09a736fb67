// SPDX-License-Identifier: Apache-2.0
// LagKV: a stretch of tokens is judged by the stretch that follows it.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvast/core/check_policy.h"

namespace kvast {

/// Behind the sinks, tokens are cut into stretches of `lag`. Each is scaled channel by channel by
/// the range of the next one; a token whose channels then deviate much from each other is worth
/// keeping. The last whole stretch and what follows it go only when nothing else is left. Needs no
/// attention. Ref: LagKV, arXiv:2504.04704, §3.   State: none; keys and values are decoded when it
/// acts. Without `across` only ranks inside a stretch count, so each gives up equally many, as the
/// authors have it.
struct LagKV {
  int tokens_kept = 512;  ///< budget per head
  int sinks = 4;          ///< first tokens that are left, always kept
  int lag = 128;          ///< tokens of a stretch
  bool across = false;    ///< stretches compete with each other
  When when = When::prompt();
  static constexpr Needs needs{.vectors = true};
  struct State {};

  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    const int count = static_cast<int>(ranks.size());
    // what is not judged ranks above all that is (scores are below 1), the newest highest
    for (int at = 0; at < count; ++at)
      ranks[static_cast<std::size_t>(at)] = at < sinks ? kPin : 2.0F + static_cast<float>(at);
    if (count - sinks < 2 * lag) return;
    const int stretches = (count - sinks) / lag - 1;
    std::vector<double> of_keys(static_cast<std::size_t>(lag));
    std::vector<double> of_values(of_keys.size());
    std::vector<int> order(of_keys.size());
    for (int stretch = 0; stretch < stretches; ++stretch) {
      const int first = sinks + stretch * lag;
      judge(view.keys, view.head_dim, first, of_keys);
      judge(view.values, view.value_dim, first, of_values);
      for (int at = 0; at < lag; ++at) {
        order[static_cast<std::size_t>(at)] = at;
        of_keys[static_cast<std::size_t>(at)] =
            (of_keys[static_cast<std::size_t>(at)] + of_values[static_cast<std::size_t>(at)]) / 2;
      }
      float* to = ranks.data() + first;
      if (across) {
        for (int at = 0; at < lag; ++at)
          to[at] = static_cast<float>(of_keys[static_cast<std::size_t>(at)]);
        continue;
      }
      std::stable_sort(order.begin(), order.end(), [&](int left, int right) {
        return of_keys[static_cast<std::size_t>(left)] < of_keys[static_cast<std::size_t>(right)];
      });
      for (int at = 0; at < lag; ++at)
        to[order[static_cast<std::size_t>(at)]] = static_cast<float>(at) / static_cast<float>(lag);
    }
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.first = sinks}; }
  void validate(Caller caller) const {
    require(sinks >= 0, caller, "LagKV.sinks is ", sinks, ", must be at least 0");
    require(lag >= 2 && lag <= (1 << 20), caller, "LagKV.lag is ", lag, ", must lie in [2, 2^20]");
    require(tokens_kept >= 1 && tokens_kept >= sinks, caller, "LagKV.tokens_kept is ", tokens_kept,
            ", must be at least 1 and at least sinks, ", sinks);
  }

 private:
  /// Softmax, over a stretch, of the standard deviation over channels of its scaled tokens.
  void judge(std::span<const float> vectors, int dim, int first,
             std::vector<double>& scores) const {
    const auto at = [&](int token, int channel) {
      return static_cast<double>(
          vectors[static_cast<std::size_t>(token) * static_cast<std::size_t>(dim) +
                  static_cast<std::size_t>(channel)]);
    };
    std::vector<double> least(static_cast<std::size_t>(dim));
    std::vector<double> range(least.size());
    for (int channel = 0; channel < dim; ++channel) {
      double low = at(first + lag, channel);
      double high = low;
      for (int token = first + lag; token < first + 2 * lag; ++token) {
        low = std::min(low, at(token, channel));
        high = std::max(high, at(token, channel));
      }
      least[static_cast<std::size_t>(channel)] = low;
      range[static_cast<std::size_t>(channel)] = std::max(high - low, 1e-30);
    }
    double most = -1.0;
    for (int token = 0; token < lag; ++token) {
      double sum = 0.0;
      double squares = 0.0;
      for (int channel = 0; channel < dim; ++channel) {
        const auto index = static_cast<std::size_t>(channel);
        const double scaled = (at(first + token, channel) - least[index]) / range[index];
        sum += scaled;
        squares += scaled * scaled;
      }
      const double variance = (squares - sum * sum / dim) / std::max(dim - 1, 1);
      scores[static_cast<std::size_t>(token)] = std::sqrt(std::max(variance, 0.0));
      most = std::max(most, scores[static_cast<std::size_t>(token)]);
    }
    double total = 0.0;
    for (double& score : scores) total += score = std::exp(score - most);
    for (double& score : scores) score /= total;
  }
};
static_assert(check_policy<LagKV>());

}  // namespace kvast
