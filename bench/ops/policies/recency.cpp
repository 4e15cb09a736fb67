// SPDX-License-Identifier: Apache-2.0
// Policies that look at positions, keys and values.
#include "bench/ops/policies/cost.h"

namespace kvast::bench {

void add_recency_rows() {
  add("full", [](int) { return Full{}; });
  add("streaming", [](int tokens) { return StreamingLLM{.sinks = 4, .recent = tokens - 4}; });
  add("random", [](int tokens) { return Random{.tokens_kept = tokens}; });
  add("l2norm", [](int tokens) { return L2Norm{.tokens_kept = tokens, .skip = {}}; });
  add(
      "keydiff", [](int tokens) { return KeyDiff{.tokens_kept = tokens}; }, 2.0);
  add(
      "lagkv", [](int tokens) { return LagKV{.tokens_kept = tokens}; }, 2.0);
}

}  // namespace kvast::bench
