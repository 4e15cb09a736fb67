// SPDX-License-Identifier: Apache-2.0
// Policies that look at positions and keys, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

Full read_full(Spec&, int) { return {}; }

StreamingLLM read_streaming(Spec& spec, int prompt) {
  StreamingLLM policy;
  policy.sinks = spec.tokens("sinks", policy.sinks, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  if (const int budget = spec.optional_tokens("budget", prompt); budget >= 0)
    policy.recent = budget - policy.sinks;
  policy.when = spec.when(policy.when);
  return policy;
}

L2Norm read_l2norm(Spec& spec, int prompt) {
  L2Norm policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.skip = {};
  for (const int layer : spec.list("skip", {0, 1})) policy.skip.add(layer);
  policy.when = spec.when(policy.when);
  return policy;
}

}  // namespace

std::span<const PolicyName> recency_policies() {
  static constexpr PolicyName kPolicies[] = {policy_row<read_full>("full"),
                                             policy_row<read_streaming>("streaming"),
                                             policy_row<read_l2norm>("l2norm")};
  return kPolicies;
}

}  // namespace kvast::quality
