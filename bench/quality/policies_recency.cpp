// SPDX-License-Identifier: Apache-2.0
// Policies that look at positions and keys, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

Full read_full(Spec& spec, int) {
  (void)spec.when(When::step());  // every policy takes it; this one never acts
  return {};
}

StreamingLLM read_streaming(Spec& spec, int prompt) {
  StreamingLLM policy;
  read_common(spec, prompt, policy);
  if (const int budget = spec.optional_tokens("budget", prompt); budget >= 0)
    policy.recent = budget - policy.sinks;
  return policy;
}

Random read_random(Spec& spec, int prompt) {
  auto policy = read_plain<Random>(spec, prompt);
  policy.seed = static_cast<std::uint64_t>(spec.number("seed", static_cast<int>(policy.seed)));
  return policy;
}

L2Norm read_l2norm(Spec& spec, int prompt) {
  L2Norm policy;
  read_common(spec, prompt, policy);
  policy.skip = {};
  for (const int layer : spec.list("skip", {0, 1})) policy.skip.add(layer);
  return policy;
}

}  // namespace

std::span<const PolicyName> recency_policies() {
  static constexpr PolicyName kPolicies[] = {
      policy_row<read_full>("full"), policy_row<read_streaming>("streaming"),
      policy_row<read_l2norm>("l2norm"), policy_row<read_random>("random")};
  return kPolicies;
}

}  // namespace kvast::quality
