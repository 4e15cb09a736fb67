// SPDX-License-Identifier: Apache-2.0
// SnapKV: the end of the prompt votes for the rest of it.
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast {

/// Keeps what the last queries of the prompt attend to, smoothed along the sequence, and those
/// queries' own tokens. Acts once at a prompt's end; what is generated then stays. Ref: SnapKV,
/// arXiv:2404.14469, §4.   State: 4 bytes per token and head. The authors' configurations: window
/// 32, pooling 5 average or 7 maximum. The vote is reduced over the group before pooling; with
/// `mean` and average pooling that equals the other order.
struct SnapKV {
  int tokens_kept = 1024;  ///< budget per head, window included
  int window = 32;         ///< newest queries that vote; their tokens are kept
  Pooling pooling{.width = 5, .kind = Pooling::Kind::average};
  When when = When::prompt();
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  static constexpr bool replays =
      true;  // the window may reach back into earlier chunks of the prompt
  struct State {
    float vote = 0.0F;
  };

  KVAST_HD void observe(State& s, Attention a) const {
    s.vote = (a.row == 0 ? 0.0F : s.vote) + a.weight;
  }
  KVAST_HD float rank(Token t, State s) const { return t.age < window ? kPin : s.vote; }
  int window_rows() const { return window; }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = window}; }
  void validate(Caller caller) const {
    require(window >= 1, caller, "SnapKV.window is ", window, ", must be at least 1");
    require(tokens_kept >= window, caller, "SnapKV.tokens_kept is ", tokens_kept,
            ", must be at least window, ", window);
    require(pooling.width >= 1 && pooling.width % 2 == 1, caller, "SnapKV.pooling.width is ",
            pooling.width, ", must be odd");
  }
};
static_assert(check_policy<SnapKV>());

}  // namespace kvast
