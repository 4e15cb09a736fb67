// SPDX-License-Identifier: Apache-2.0
// The golden trace: one head, eight prompt tokens and a few steps, worked out by hand for several
// methods.
#pragma once

#include <vector>

#include "tests/policy/script.h"

namespace kvast::test {

inline constexpr int kTracePrompt = 8;

/// x(t, i) = ((7 t + 5 i^2 + 3 i) mod 11) / 2.
inline double trace_logit(int, int step, int position) {
  return ((7 * step + 5 * position * position + 3 * position) % 11) / 2.0;
}

inline Script trace() { return {.shape = {.head_dim = 16, .value_dim = 8}, .logits = trace_logit}; }

/// A policy that behaves as `Inner`, and notes the state of every live token when it ranks them.
/// Tier 2 on purpose: only `summarize` is promised live tokens alone.
template <class Inner>
struct Probe {
  Inner inner;
  std::vector<typename Inner::State>* seen = nullptr;  ///< by position
  Pooling pooling{};
  When when = detail::when_of(inner);
  static constexpr Needs needs = Inner::needs;
  static constexpr bool replays = detail::replays<Inner>();
  using State = typename Inner::State;
  struct Head {};

  void observe(State& state, Attention attention) const { inner.observe(state, attention); }
  Head summarize(Token token, State state) const {
    if (seen->size() <= static_cast<std::size_t>(token.position))
      seen->resize(static_cast<std::size_t>(token.position) + 1);
    (*seen)[static_cast<std::size_t>(token.position)] = state;
    return {};
  }
  Head merge(Head, Head) const { return {}; }
  float rank(Token token, State state, Head) const { return inner.rank(token, state); }
  int window_rows() const { return detail::window_of(inner); }
  Budget budget(Layer layer) const { return detail::budget_of(inner, layer); }
};

}  // namespace kvast::test
