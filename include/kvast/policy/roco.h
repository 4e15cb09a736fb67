// SPDX-License-Identifier: Apache-2.0
// RoCo: of the tokens whose attention is steady, the one that gets least goes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps tokens whose attention varies (they may matter again) and, of the steady rest, those with
/// the highest mean. Ref: RoCo (EasyKV), arXiv:2402.06262.   State: 12 bytes per token and head.
/// `spared` is the part of the budget that the largest deviations protect: 0.3 in decoding, 0.1 for
/// prompts, as the authors have it. Where several must go they go one by one, and each that goes
/// lets the steadiest of the spared in among those that are judged by their mean.
struct RoCo {
  int tokens_kept = 512;  ///< budget per head
  int sinks = 4;          ///< first tokens, always kept
  int recent = 10;        ///< newest tokens, always kept
  float spared = 0.3F;    ///< in [0, 1)
  When when = When::step();
  Reduce reduce = Reduce::mean;
  static constexpr bool ranks_in_head = true;  ///< ranks say nothing beside another head's
  static constexpr Needs needs{.attention = true};
  struct State {
    float sum = 0.0F;
    float squares = 0.0F;
    float count = 0.0F;
  };

  KVAST_HD void observe(State& s, Attention a) const {
    s.sum += a.weight;
    s.squares += a.weight * a.weight;
    s.count += 1.0F;
  }
  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    const std::size_t count = view.tokens.size();
    std::vector<Deviation> order(count);
    float highest = 0.0F;
    for (std::size_t at = 0; at < count; ++at) {
      const State& s = view.states[at];
      const float seen = std::max(s.count, 1.0F);
      const float mean = s.sum / seen;
      // rounding can push a variance below zero
      const float deviation = std::sqrt(std::max(s.squares / seen - mean * mean, 0.0F));
      ranks[at] = mean;
      // a mean that is no number says nothing: the token goes first, however steady
      const bool known = is_finite(static_cast<double>(mean));
      if (known) {
        highest = std::max(highest, mean);
      } else {
        ranks[at] = kNoNumber;
      }
      order[at] = {keeps(view.tokens[at]) ? kPinKey : known ? rank_key(deviation) : kDropKey, at};
    }
    const auto budget = static_cast<std::size_t>(std::max(view.budget, 0));
    const auto protects = static_cast<std::size_t>(spared * static_cast<float>(budget) + 1e-3F);
    const std::size_t steady = std::max<std::size_t>(budget - std::min(protects, budget), 1);
    if (steady < count) {
      // of equal deviations the older token is the steadier one
      const auto judged = order.begin() + static_cast<std::ptrdiff_t>(steady);
      std::nth_element(order.begin(), judged, order.end());
      const std::size_t admitted =
          count > budget + 1 ? std::min(count - budget - 1, count - steady) : 0;
      if (admitted > 0) drop_in_turn(order, steady, admitted, 2.0F + highest, ranks);
      for (std::size_t at = steady + admitted; at < count; ++at)
        if (order[at].key > kDropKey) ranks[order[at].at] += 1.0F + highest;
    }
    for (std::size_t at = 0; at < count; ++at)
      if (keeps(view.tokens[at])) ranks[at] = kPin;
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.first = sinks, .newest = recent}; }
  void validate(Caller caller) const {
    require(sinks >= 0, caller, "RoCo.sinks is ", sinks, ", must be at least 0");
    require(recent >= 0, caller, "RoCo.recent is ", recent, ", must be at least 0");
    require(spared >= 0.0F && spared < 1.0F, caller, "RoCo.spared is ", spared,
            ", must lie in [0, 1)");
    require(tokens_kept >= 1 && tokens_kept - recent >= sinks, caller, "RoCo.tokens_kept is ",
            tokens_kept, ", must be at least 1 and at least sinks + recent, ", sinks, " + ",
            recent);
  }

 private:
  static constexpr float kNoNumber = kDrop / 2.0F;  ///< rank of a token whose mean is none
  struct Deviation {
    std::int32_t key;
    std::size_t at;
    bool operator<(const Deviation& other) const {
      return key != other.key ? key < other.key : at < other.at;
    }
  };
  struct Mean {
    std::int32_t key;
    std::size_t at;
    bool operator>(const Mean& other) const {
      return key != other.key ? key > other.key : at > other.at;
    }
  };

  /// Ranks all but the last of the tokens that go, which selection itself finds, lower by `below`.
  /// The first `steady` of `order` are the steadiest of all.
  static void drop_in_turn(std::vector<Deviation>& order, std::size_t steady, std::size_t going,
                           float below, std::span<float> ranks) {
    const auto next = order.begin() + static_cast<std::ptrdiff_t>(steady);
    std::partial_sort(next, next + static_cast<std::ptrdiff_t>(going), order.end());
    std::priority_queue<Mean, std::vector<Mean>, std::greater<>> judged;
    const auto judge = [&](const Deviation& token) {
      if (token.key < kPinKey) judged.push({rank_key(ranks[token.at]), token.at});
    };
    std::for_each(order.begin(), next, judge);
    for (std::size_t turn = 0; turn < going; ++turn) {
      if (!judged.empty()) {
        if (judged.top().key > rank_key(kNoNumber)) ranks[judged.top().at] -= below;
        judged.pop();
      }
      judge(order[steady + turn]);
    }
  }
  bool keeps(Token token) const { return token.position < sinks || token.age < recent; }
};
static_assert(check_policy<RoCo>());

}  // namespace kvast
