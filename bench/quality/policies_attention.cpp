// SPDX-License-Identifier: Apache-2.0
// Policies that look at attention, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

H2O read_h2o(Spec& spec, int prompt) {
  H2O policy;
  const bool recent_given = spec.has("recent");
  policy.heavy = spec.tokens("heavy", policy.heavy, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  if (const int budget = spec.optional_tokens("budget", prompt); budget >= 0) {
    if (!recent_given) policy.recent = budget / 2;
    policy.heavy = budget - policy.recent;
  }
  policy.by_lifetime = spec.flag("lifetime", policy.by_lifetime);
  policy.reduce = read_reduce(spec);
  policy.when = spec.when(policy.when);
  return policy;
}

Corm read_corm(Spec& spec, int prompt) {
  Corm policy;
  policy.window = spec.tokens("window", policy.window, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.reduce = read_reduce(spec);
  policy.when = spec.when(policy.when);
  return policy;
}

TOVA read_tova(Spec& spec, int prompt) {
  TOVA policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.when = spec.when(policy.when);
  return policy;
}

SnapKV read_snapkv(Spec& spec, int prompt) {
  SnapKV policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.window = spec.tokens("window", policy.window, prompt);
  policy.pooling.width = spec.number("pool", policy.pooling.width);
  policy.pooling.kind = static_cast<Pooling::Kind>(spec.choice("kind", {"avg", "max"}, 0));
  policy.reduce = read_reduce(spec);
  policy.when = spec.when(policy.when);
  return policy;
}

}  // namespace

std::span<const PolicyName> attention_policies() {
  static constexpr PolicyName kPolicies[] = {
      policy_row<read_h2o>("h2o"), policy_row<read_corm>("corm"), policy_row<read_tova>("tova"),
      policy_row<read_snapkv>("snapkv")};
  return kPolicies;
}

}  // namespace kvast::quality
