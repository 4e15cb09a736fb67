// SPDX-License-Identifier: Apache-2.0
// Policies by name: reads a SPEC into a policy value and hands it to a visitor. One row per policy.
#pragma once

#include <string>
#include <utility>

#include "bench/quality/spec.h"
#include "kvast/kvast.h"

namespace kvast::quality {

inline Reduce read_reduce(Spec& spec) {
  return static_cast<Reduce>(spec.choice("reduce", {"mean", "sum", "max"}, 0));
}

inline Full read_full(Spec&, int) { return {}; }

inline StreamingLLM read_streaming(Spec& spec, int prompt) {
  StreamingLLM policy;
  policy.sinks = spec.tokens("sinks", policy.sinks, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  if (const int budget = spec.optional_tokens("budget", prompt); budget >= 0)
    policy.recent = budget - policy.sinks;
  policy.when = spec.when(policy.when);
  return policy;
}

inline H2O read_h2o(Spec& spec, int prompt) {
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

inline L2Norm read_l2norm(Spec& spec, int prompt) {
  L2Norm policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.skip = {};
  for (const int layer : spec.list("skip", {0, 1})) {
    if (layer < 0 || layer > 255)
      throw SpecError("SPEC 'l2norm': skip holds layer " + std::to_string(layer) +
                      ", must lie in [0, 255]");
    policy.skip.add(layer);
  }
  policy.when = spec.when(policy.when);
  return policy;
}

inline Corm read_corm(Spec& spec, int prompt) {
  Corm policy;
  policy.window = spec.tokens("window", policy.window, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.reduce = read_reduce(spec);
  policy.when = spec.when(policy.when);
  return policy;
}

inline TOVA read_tova(Spec& spec, int prompt) {
  TOVA policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.recent = spec.tokens("recent", policy.recent, prompt);
  policy.when = spec.when(policy.when);
  return policy;
}

inline SnapKV read_snapkv(Spec& spec, int prompt) {
  SnapKV policy;
  policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  policy.window = spec.tokens("window", policy.window, prompt);
  policy.pooling.width = spec.number("pool", policy.pooling.width);
  policy.pooling.kind = static_cast<Pooling::Kind>(spec.choice("kind", {"avg", "max"}, 0));
  policy.reduce = read_reduce(spec);
  policy.when = spec.when(policy.when);
  return policy;
}

/// Calls visit(name, read) for every policy; `read(Spec&, prompt)` gives the policy.
template <class Visit>
void for_each_policy(Visit&& visit) {
  visit("full", read_full);
  visit("streaming", read_streaming);
  visit("h2o", read_h2o);
  visit("l2norm", read_l2norm);
  visit("corm", read_corm);
  visit("tova", read_tova);
  visit("snapkv", read_snapkv);
}

/// Calls visit(policy, positions) with the policy that `text` names.
template <class Visit>
void with_policy(const std::string& text, int prompt, Visit&& visit) {
  Spec spec = Spec::parse(text);
  bool found = false;
  std::string names;
  for_each_policy([&](const char* name, auto read) {
    names += std::string(" ") + name;
    if (spec.name() != name) return;
    found = true;
    const auto policy = read(spec, prompt);
    const auto positions =
        static_cast<Positions>(spec.choice("positions", {"original", "compacted"}, 0));
    spec.finish();
    visit(policy, positions);
  });
  if (!found) throw SpecError("unknown policy '" + spec.name() + "'; valid are" + names);
}

}  // namespace kvast::quality
