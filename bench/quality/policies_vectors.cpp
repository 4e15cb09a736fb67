// SPDX-License-Identifier: Apache-2.0
// Policies that look at keys and values themselves, by name.
#include "bench/quality/typed_cache.h"

namespace kvast::quality {
namespace {

LagKV read_lagkv(Spec& spec, int prompt) {
  LagKV policy;
  read_common(spec, prompt, policy);
  policy.lag = spec.tokens("lag", policy.lag, prompt);
  policy.across = spec.flag("across", policy.across);
  return policy;
}

ExpectedAttention read_expected(Spec& spec, int prompt) {
  ExpectedAttention policy;
  read_common(spec, prompt, policy);
  policy.future = spec.number("future", policy.future);
  policy.covariance = spec.flag("covariance", policy.covariance);
  policy.value_norms = spec.flag("vnorm", policy.value_norms);
  policy.epsilon = static_cast<float>(spec.real("epsilon", policy.epsilon));
  return policy;
}

}  // namespace

std::span<const PolicyName> vectors_policies() {
  static constexpr PolicyName kPolicies[] = {policy_row<read_plain<KeyDiff>>("keydiff"),
                                             policy_row<read_lagkv>("lagkv"),
                                             policy_row<read_expected>("expected")};
  return kPolicies;
}

}  // namespace kvast::quality
