// SPDX-License-Identifier: Apache-2.0
// Policies that decide at a prompt's end by its attention, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

SnapKV read_snapkv(Spec& spec, int prompt) {
  SnapKV policy;
  read_common(spec, prompt, policy);
  policy.pooling.width = spec.number("pool", policy.pooling.width);
  policy.pooling.kind = static_cast<Pooling::Kind>(spec.choice("kind", {"avg", "max"}, 0));
  return policy;
}

Pyramid<SnapKV> read_pyramidkv(Spec& spec, int prompt) {
  Pyramid<SnapKV> policy{read_snapkv(spec, prompt)};
  policy.beta = spec.real("beta", policy.beta);
  if (spec.choice("schedule", {"paper", "kvpress"}, 0) == 1 && prompt > 0)
    policy.kvpress = std::min(1.0, policy.tokens_kept / static_cast<double>(prompt));
  return policy;
}

AdaHeads<SnapKV> read_adakv(Spec& spec, int prompt) {
  AdaHeads<SnapKV> policy{read_snapkv(spec, prompt)};
  policy.safeguard = static_cast<float>(spec.real("alpha", policy.safeguard));
  policy.kind = static_cast<Allocation::Kind>(spec.choice("share", {"blend", "floor"}, 0));
  return policy;
}

FastGen read_fastgen(Spec& spec, int) {
  FastGen policy;
  policy.threshold = static_cast<float>(spec.real("threshold", policy.threshold));
  policy.frequent = static_cast<float>(spec.real("frequent", policy.frequent));
  policy.local = static_cast<float>(spec.real("local", policy.local));
  policy.criterion = static_cast<FastGen::Criterion>(spec.choice("criterion", {"mass", "l1"}, 0));
  policy.rows = spec.number("rows", policy.rows);
  policy.by_lifetime = spec.flag("lifetime", policy.by_lifetime);
  policy.when = spec.when(policy.when);
  return policy;
}

DBudgetKV read_dbudgetkv(Spec& spec, int prompt) {
  DBudgetKV policy;
  read_common(spec, prompt, policy);
  policy.threshold = static_cast<float>(spec.real("threshold", policy.threshold));
  return policy;
}

}  // namespace

std::span<const PolicyName> window_policies() {
  static constexpr PolicyName kPolicies[] = {
      policy_row<read_snapkv>("snapkv"), policy_row<read_pyramidkv>("pyramidkv"),
      policy_row<read_adakv>("adakv"), policy_row<read_fastgen>("fastgen"),
      policy_row<read_dbudgetkv>("dbudgetkv")};
  return kPolicies;
}

}  // namespace kvast::quality
