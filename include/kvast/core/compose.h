// SPDX-License-Identifier: Apache-2.0
// Policies made of others: how the engine finds the part that is asked. A policy that is not made
// of others is its own only part.
#pragma once

#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/core/sets.h"

#if defined(__CUDACC__)
// a wrapped policy's hook must be KVAST_HD, as its caller is
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::detail {

template <class Policy, Split kSplit>
constexpr bool splits() {
  if constexpr (Composite<Policy>) return Policy::split == kSplit;
  return false;
}

/// Whether the policy, or one of the parts that it has for heads, gives weights new values.
template <class Policy>
constexpr bool weighs() {
  if constexpr (splits<Policy, Split::heads>()) return Policy::weighs;
  return Weighs<Policy>;
}

/// body(policy) with the one that a layer has.
template <class Policy, class Body>
void of_layer(const Policy& policy, int layer, Body&& body) {
  if constexpr (splits<Policy, Split::layers>()) {
    policy.of(layer, [&](const auto& part) { of_layer(part, layer, body); });
  } else {
    body(policy);
  }
}

/// Whether two layers have the same part of a policy: parts lie at addresses of their own.
template <class Policy>
bool have_one_part(const Policy& policy, int layer, int other) {
  const void* one = nullptr;
  const void* two = nullptr;
  of_layer(policy, layer, [&](const auto& part) { one = &part; });
  of_layer(policy, other, [&](const auto& part) { two = &part; });
  return one == two;
}

/// body(policy) with the one that acts at a prompt's end, or after any other pass.
template <class Policy, class Body>
void of_phase(const Policy& policy, bool ends_prompt, Body&& body) {
  if constexpr (splits<Policy, Split::phases>()) {
    policy.of(ends_prompt, body);
  } else {
    body(policy);
  }
}

/// body(part, heads) with each that is not made of others, and the heads that it decides for.
template <class Policy, class Body>
void each_part(const Policy& policy, const Body& body) {
  if constexpr (splits<Policy, Split::heads>()) {
    policy.each(body);
  } else if constexpr (Composite<Policy>) {
    policy.each([&](const auto& part) { each_part(part, body); });
  } else {
    body(policy, AllHeads{});
  }
}

/// The layers in which the part of a policy that `head` of `layer` has in a phase decides for a
/// head.
template <class Policy>
LayerSet own_layers(const Policy& policy, const ShapeList& shape, int layer, int head,
                    bool ends_prompt) {
  LayerSet own;
  of_layer(policy, layer, [&](const auto& mine) {
    of_phase(mine, ends_prompt, [&](const auto& phase) {
      const auto decides = [&](int other) {
        if constexpr (splits<std::remove_cvref_t<decltype(phase)>, Split::heads>()) {
          const bool listed = phase.heads.contains(layer, head);
          int at = 0;
          while (at < shape[other].heads && phase.heads.contains(other, at) != listed) ++at;
          return at < shape[other].heads;
        } else {
          return true;
        }
      };
      for (int other = 0; other < shape.layers() && other < LayerSet::kMost; ++other) {
        if (have_one_part(policy, layer, other) && decides(other)) own.add(other);
      }
    });
  });
  return own;
}

/// body(policy) with each that watches a pass: the one for decoding sees the prompt as well, since
/// its states begin there.
template <class Policy, class Body>
void each_watcher(const Policy& policy, bool in_prompt, Body&& body) {
  if constexpr (splits<Policy, Split::phases>()) {
    if (in_prompt) policy.of(true, body);
    policy.of(false, body);
  } else {
    body(policy);
  }
}

/// body(policy) with the one that a head has.
template <class Policy, class Body>
void of_head(const Policy& policy, int layer, int head, Body&& body) {
  if constexpr (splits<Policy, Split::heads>()) {
    policy.of(layer, head, body);
  } else {
    body(policy);
  }
}

/// A part of a composite policy: `Inner`, whose states are a member of the composite's.
/// `kAtPrompts`: it acts at prompts' ends whatever its habit.
template <class Inner, class Whole, auto kMember, bool kAtPrompts = false>
struct Part : Inner {
  using Named = Inner;
  using State = Whole;
  When when;

  Part() = default;
  explicit Part(const Inner& inner)
      : Inner(inner), when(kAtPrompts ? When::prompt() : when_of(inner)) {}

  KVAST_HD void observe(State& s, Attention a) const requires Observes<Inner> {
    Inner::observe(s.*kMember, a);
  }
  KVAST_HD float rank(Token t, const State& s) const requires RanksTokens<Inner> {
    return Inner::rank(t, s.*kMember);
  }
  KVAST_HD auto summarize(Token t, const State& s) const requires RanksByHead<Inner> {
    return Inner::summarize(t, s.*kMember);
  }
  template <class Context>  // a Head, or a Choice
  KVAST_HD float rank(Token t, const State& s, const Context& context) const
      requires(RanksByHead<Inner> || Chooses<Inner>) {
    return Inner::rank(t, s.*kMember, context);
  }
  void rank_head(HeadView<State> view,
                 std::span<float> ranks) const requires RanksWholeHeads<Inner> {
    std::vector<typename Inner::State> states;
    for (const State& state : view.states) states.push_back(state.*kMember);
    Inner::rank_head({.tokens = view.tokens,
                      .states = states,
                      .budget = view.budget,
                      .keys = view.keys,
                      .values = view.values,
                      .head_dim = view.head_dim,
                      .value_dim = view.value_dim,
                      .query_means = view.query_means,
                      .query_covariances = view.query_covariances,
                      .rope = view.rope},
                     ranks);
    for (std::size_t at = 0; at < states.size(); ++at) view.states[at].*kMember = states[at];
  }
  KVAST_HD float frequency(Token t, const State& s) const requires Chooses<Inner> {
    return Inner::frequency(t, s.*kMember);
  }
  KVAST_HD void mark(State& s) const requires Chooses<Inner> { Inner::mark(s.*kMember); }
  template <class Profile>
  KVAST_HD void profile(Profile& profile, Token t, const State& s,
                        Attention a) const requires Chooses<Inner> {
    Inner::profile(profile, t, s.*kMember, a);
  }
  template <class Body>
  void of(int layer, int head, Body&& body) const requires(splits<Inner, Split::heads>()) {
    Inner::of(layer, head, [&](const auto& part) {
      using Leaf = std::remove_cvref_t<decltype(part)>;
      body(Part<Leaf, Whole, kMember, kAtPrompts>{part});
    });
  }
  template <class Body>
  void each(Body&& body) const requires(splits<Inner, Split::heads>()) {
    Inner::each([&](const auto& part, const PartHeads& its_heads) {
      using Leaf = std::remove_cvref_t<decltype(part)>;
      body(Part<Leaf, Whole, kMember, kAtPrompts>{part}, its_heads);
    });
  }
};

/// What messages call a policy, whatever it is a part of.
template <class Policy>
constexpr auto policy_name() {
  if constexpr (requires { typename Policy::Named; }) {
    return policy_name<typename Policy::Named>();
  } else {
    return type_name<Policy>;
  }
}

}  // namespace kvast::detail

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
