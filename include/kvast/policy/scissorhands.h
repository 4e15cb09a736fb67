// SPDX-License-Identifier: Apache-2.0
// Scissorhands: what was pivotal stays pivotal; many tokens go at once.
#pragma once

#include <bit>
#include <cstdint>

#include "kvast/core/check_policy.h"

namespace kvast {

/// Drops the tokens that most often got less than a uniform share (within 1e-5) from the last
/// `window` queries, `when.batch` of them at once when the budget is exceeded. Judged by rate over
/// the queries that could see the token, so that a newcomer is not blamed for queries before it.
/// Ref: Scissorhands, arXiv:2305.17118, Algorithms 1 and 2.   State: 56 bytes per token and head
/// (one bit per query). The paper's m is half the budget. Budgets by layer: PerLayerBudget with
/// `funnel`.
struct Scissorhands {
  static constexpr int kMostWindow = 416;

  int tokens_kept = 512;  ///< budget per head
  int recent = 10;        ///< newest tokens, always kept
  int window = 400;       ///< queries that are remembered, at most kMostWindow
  When when = When::full(256);
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  struct State {
    std::uint32_t low[kMostWindow / 32] =
        {};         ///< bit `step % window` of each query that saw little
    int last = -1;  ///< newest query
  };

  KVAST_HD void observe(State& s, Attention a) const {
    // a step that nobody observed must not keep the bit of the one it replaces
    const int gap = s.last < 0 ? 1 : a.step - s.last;
    if (gap >= window) {
      for (std::uint32_t& word : s.low) word = 0;
    } else {
      for (int step = a.step - gap + 1; step <= a.step; ++step) set(s, step % window, false);
    }
    const float share = a.weight * static_cast<float>(a.visible);  // NaN counts as little
    if (rank_key(share) < rank_key(1.0F - 1e-5F)) set(s, a.step % window, true);
    s.last = a.step;
  }
  KVAST_HD float rank(Token t, const State& s) const {
    if (t.age < recent) return kPin;
    int low = 0;
    for (const std::uint32_t word : s.low) low += count_bits(word);
    const int observed = t.age + 1 < window ? t.age + 1 : window;
    return -static_cast<float>(low) / static_cast<float>(observed);
  }
  int window_rows() const { return window; }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const {
    require(window >= 1 && window <= kMostWindow, caller, "Scissorhands.window is ", window,
            ", must lie in [1, ", kMostWindow, "]");
    check_kept("Scissorhands", tokens_kept, recent, caller);
  }

 private:
  KVAST_HD static void set(State& s, int bit, bool value) {
    const std::uint32_t mask = std::uint32_t{1} << (bit % 32);
    s.low[bit / 32] = value ? s.low[bit / 32] | mask : s.low[bit / 32] & ~mask;
  }
};
static_assert(check_policy<Scissorhands>());

}  // namespace kvast
