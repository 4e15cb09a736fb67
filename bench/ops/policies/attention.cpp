// SPDX-License-Identifier: Apache-2.0
// Policies that look at attention while they decode.
#include "bench/ops/policies/cost.h"

namespace kvast::bench {

namespace {

H2O h2o(int tokens) { return {.heavy = tokens / 2, .recent = tokens / 2}; }

}  // namespace

void add_attention_rows() {
  add("h2o", h2o);
  add("tova", [](int tokens) { return TOVA{.tokens_kept = tokens}; });
  // one of 256 random queries cares for any token: the paper's window would never let one go; and
  // the queries come again after 64 steps, so a lazy one must not act at the same of them each time
  add_row("corm/window:16", [](int) { return Corm{.window = 16}; });
  add_row("corm/window:16/every:48",
          [](int) { return Corm{.window = 16, .when = When::full(48)}; });
  add_row("corm/cap", [](int tokens) { return Corm{.cap = tokens}; });
  add("scissorhands", [](int tokens) { return Scissorhands{.tokens_kept = tokens}; });
  add("keyformer",
      [](int tokens) { return Keyformer{.tokens_kept = tokens, .recent = tokens * 3 / 10}; });
  add("roco", [](int tokens) { return RoCo{.tokens_kept = tokens}; });
  add("cascading", [](int tokens) { return Cascading{.ring = (tokens - 64) / 4}; });
  add(
      "pyramid_h2o", [](int tokens) { return Pyramid<H2O>{h2o(tokens)}; }, 2.0);
  add("ada_h2o", [](int tokens) { return AdaHeads<H2O>{h2o(tokens)}; });
  // low enough for the rule that keeps 0.3 of the prompt and 0.3 of all positions; by lifetime both
  // would be the newest tokens, as only the newest queries are shown
  add(
      "fastgen", [](int) { return FastGen{.threshold = 0.45F, .by_lifetime = false}; }, 1 / 0.6);
}

}  // namespace kvast::bench
