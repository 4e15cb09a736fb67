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
  // a cap is never exceeded for 64 steps, and without one these queries leave no token uncared for
  add_row("corm", [](int tokens) { return Corm{.cap = tokens}; });
  add_row("corm/every:64", [](int) { return Corm{.when = When::full(64)}; });
  add("scissorhands", [](int tokens) { return Scissorhands{.tokens_kept = tokens}; });
  add("keyformer",
      [](int tokens) { return Keyformer{.tokens_kept = tokens, .recent = tokens * 3 / 10}; });
  add("roco", [](int tokens) { return RoCo{.tokens_kept = tokens}; });
  add("cascading", [](int tokens) { return Cascading{.ring = (tokens - 64) / 4}; });
  add(
      "pyramid_h2o", [](int tokens) { return Pyramid<H2O>{h2o(tokens)}; }, 2.0);
  add("ada_h2o", [](int tokens) { return AdaHeads<H2O>{h2o(tokens)}; });
  // low enough for the rule that keeps 0.3 of the prompt and 0.3 of all positions
  add(
      "fastgen", [](int) { return FastGen{.threshold = 0.45F}; }, 1 / 0.6);
}

}  // namespace kvast::bench
