// SPDX-License-Identifier: Apache-2.0
// Policies that look at a prompt's attention or queries at its end.
#include "bench/ops/policies/cost.h"

namespace kvast::bench {

namespace {

SnapKV snapkv(int tokens) { return {.tokens_kept = tokens}; }

}  // namespace

void add_prompt_rows() {
  add("snapkv", snapkv, 2.0);
  add(
      "pyramid_snapkv", [](int tokens) { return Pyramid<SnapKV>{snapkv(tokens)}; }, 2.0);
  add(
      "ada_snapkv", [](int tokens) { return AdaHeads<SnapKV>{snapkv(tokens)}; }, 2.0);
  add_row("dbudget", [](int) { return DBudgetKV{}; });  // no budget that it could exceed later
  add(
      "expected", [](int tokens) { return ExpectedAttention{.tokens_kept = tokens}; }, 2.0);
}

}  // namespace kvast::bench
