// SPDX-License-Identifier: Apache-2.0
// Policies that look at attention, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

H2O read_h2o(Spec& spec, int prompt) {
  H2O policy;
  const bool recent_given = spec.has("recent");
  policy.heavy = spec.tokens("heavy", policy.heavy, prompt);
  read_common(spec, prompt, policy);
  if (const int budget = spec.optional_tokens("budget", prompt); budget >= 0) {
    if (spec.has("heavy"))
      throw SpecError("h2o: heavy is budget - recent, so give two of budget, heavy and recent");
    if (!recent_given) policy.recent = budget / 2;
    policy.heavy = budget - policy.recent;
  }
  policy.by_lifetime = spec.flag("lifetime", policy.by_lifetime);
  return policy;
}

Corm read_corm(Spec& spec, int prompt) {
  Corm policy;
  read_common(spec, prompt, policy);
  policy.cap = spec.optional_tokens("cap", prompt);
  return policy;
}

Scissorhands read_scissorhands(Spec& spec, int prompt) {
  Scissorhands policy;
  const bool when_given = spec.has("when");
  read_common(spec, prompt, policy);
  if (!when_given) policy.when = When::full(std::max(1, policy.tokens_kept / 2));  // the paper's m
  return policy;
}

RoCo read_roco(Spec& spec, int prompt) {
  RoCo policy;
  read_common(spec, prompt, policy);
  policy.spared = static_cast<float>(spec.real("spared", policy.spared));
  return policy;
}

Cascading read_cascading(Spec& spec, int prompt) {
  Cascading policy;
  read_common(spec, prompt, policy);
  policy.rings = spec.number("rings", policy.rings);
  policy.ring = spec.tokens("ring", policy.ring, prompt);
  policy.forget = static_cast<float>(spec.real("forget", policy.forget));
  return policy;
}

Keyformer read_keyformer(Spec& spec, int prompt) {
  Keyformer policy;
  const bool recent_given = spec.has("recent");
  read_common(spec, prompt, policy);
  if (!recent_given) policy.recent = policy.tokens_kept * 3 / 10;  // the authors' part
  policy.tau_begin = static_cast<float>(spec.real("tau", policy.tau_begin));
  policy.tau_end = static_cast<float>(spec.real("tau_end", policy.tau_end));
  policy.steps = spec.number("steps", policy.steps);
  policy.noise = spec.flag("noise", policy.noise);
  policy.seed = static_cast<std::uint64_t>(spec.number("seed", 1));
  return policy;
}

}  // namespace

std::span<const PolicyName> attention_policies() {
  static constexpr PolicyName kPolicies[] = {policy_row<read_h2o>("h2o"),
                                             policy_row<read_corm>("corm"),
                                             policy_row<read_plain<TOVA>>("tova"),
                                             policy_row<read_scissorhands>("scissorhands"),
                                             policy_row<read_roco>("roco"),
                                             policy_row<read_cascading>("cascading"),
                                             policy_row<read_keyformer>("keyformer")};
  return kPolicies;
}

}  // namespace kvast::quality
