// SPDX-License-Identifier: Apache-2.0
// check_policy<P>(): a policy that does not fit stops compilation with a sentence, and the engine's
// view of P's facts.
#pragma once

#include <concepts>
#include <span>
#include <type_traits>

#include "kvast/core/error.h"
#include "kvast/core/policy.h"
#include "kvast/core/shape.h"
#include "kvast/core/type_name.h"

namespace kvast {

namespace detail {

template <class Policy>
concept HasNeeds = std::same_as<std::remove_cvref_t<decltype(Policy::needs)>, Needs>;

template <class Policy>
concept HasState = requires {
  typename Policy::State;
};

template <class Policy>
concept HasHead = requires {
  typename Policy::Head;
};

template <class Policy>
concept Observes = requires(const Policy policy, typename Policy::State& state, Attention seen) {
  { policy.observe(state, seen) } -> std::same_as<void>;
};

/// Looks at each head's attention at a prompt's end, and chooses what it keeps from then on.
template <class Policy>
concept Chooses = requires(const Policy policy, typename Policy::Profile& profile,
                           typename Policy::Choice choice, Token token,
                           typename Policy::State& state, Attention seen, int tokens) {
  { policy.marks(tokens) } -> std::same_as<int>;
  { policy.frequency(token, state) } -> std::same_as<float>;
  policy.mark(state);
  policy.profile(profile, token, state, seen);
  { policy.merge(profile, profile) } -> std::same_as<typename Policy::Profile>;
  { policy.choose(profile, tokens) } -> std::same_as<typename Policy::Choice>;
  { policy.rank(token, state, choice) } -> std::same_as<float>;
  { policy.room(choice, tokens) } -> std::same_as<int>;
};

template <class Policy>
concept HasChoice = requires {
  typename Policy::Choice;
};

/// Gives each weight a new value, which is divided by the sum over the query's row (Keyformer).
template <class Policy>
concept Weighs = requires(const Policy policy, Token token, Attention seen) {
  { policy.weigh(token, seen) } -> std::same_as<float>;
};

/// A policy made of others, which are asked in its place.
template <class Policy>
concept Composite = requires {
  { Policy::split } -> std::convertible_to<Split>;
};

template <class Policy>
concept RanksTokens = requires(const Policy policy, Token token, typename Policy::State state) {
  { policy.rank(token, state) } -> std::same_as<float>;
};

template <class Policy>
concept RanksByHead = HasHead<Policy> &&
    requires(const Policy policy, Token token, typename Policy::State state,
             typename Policy::Head head) {
  { policy.summarize(token, state) } -> std::same_as<typename Policy::Head>;
  { policy.merge(head, head) } -> std::same_as<typename Policy::Head>;
  { policy.rank(token, state, head) } -> std::same_as<float>;
};

// an optional fact that is there, but cannot be asked: it would be ignored silently
template <class Policy>
concept HasOddBudget = requires {
  &Policy::budget;
}
&&!requires(const Policy policy) {
  { policy.budget(Layer{}) } -> std::same_as<Budget>;
};
template <class Policy>
concept HasOddWindow = requires {
  &Policy::window_rows;
}
&&!requires(const Policy policy) {
  { policy.window_rows() } -> std::same_as<int>;
};

template <class Policy>
concept HasOddWhen = requires {
  &Policy::when;
}
&&!requires(const Policy policy) {
  { policy.when } -> std::convertible_to<When>;
};
template <class Policy>
concept HasOddPooling = requires {
  &Policy::pooling;
}
&&!requires(const Policy policy) {
  { policy.pooling } -> std::convertible_to<Pooling>;
};
template <class Policy>
concept HasOddPins = requires {
  &Policy::pins;
}
&&!requires(const Policy policy) {
  { policy.pins() } -> std::same_as<Pins>;
};
template <class Policy>
concept HasOddValidate = requires {
  &Policy::validate;
}
&&!requires(const Policy policy, Caller caller) { policy.validate(caller); };

template <class Policy>
concept HasOddShapes = requires {
  &Policy::validate_shape;
}
&&!requires(const Policy policy, const ShapeList& shape, Caller caller) {
  policy.validate_shape(shape, caller);
};

template <class Policy>
concept RanksWholeHeads = requires(const Policy policy, HeadView<typename Policy::State> view,
                                   std::span<float> ranks) {
  { policy.rank_head(view, ranks) } -> std::same_as<void>;
};

/// The optional facts of a policy, with the defaults of those that say nothing.
template <class Policy>
Budget budget_of(const Policy& policy, Layer layer) {
  if constexpr (requires { policy.budget(layer); }) return policy.budget(layer);
  return kNoBudget;
}
template <class Policy>
When when_of(const Policy& policy) {
  if constexpr (requires { policy.when; }) return policy.when;
  return When::step();
}
template <class Policy>
Reduce reduce_of(const Policy& policy) {
  if constexpr (requires { policy.reduce; }) return policy.reduce;
  return Reduce::mean;
}
template <class Policy>
Pooling pooling_of(const Policy& policy) {
  if constexpr (requires { policy.pooling; }) return policy.pooling;
  return {};
}
template <class Policy>
constexpr Scope scope_of() {
  if constexpr (requires { Policy::scope; }) return Policy::scope;
  return Scope::head;
}
/// Queries of a pass that are observed: its last `window`; negative: all of them.
template <class Policy>
int window_of(const Policy& policy) {
  if constexpr (requires { policy.window_rows(); }) return policy.window_rows();
  return -1;
}
/// Whether each pass takes the vote of the last `window` queries anew, those of earlier passes
/// included.
template <class Policy>
constexpr bool replays() {
  if constexpr (requires { Policy::replays; }) return Policy::replays;
  return false;
}
/// What the policy pins in any long head; a budget below it is refused.
template <class Policy>
KVAST_HD Pins pins_of(const Policy& policy) {
  if constexpr (requires { policy.pins(); }) return policy.pins();
  return {};
}
/// Whether the policy says what it may keep.
template <class Policy>
concept HasBudget = requires(const Policy policy) {
  { policy.budget(Layer{}) } -> std::same_as<Budget>;
};
/// Throws Error where the policy's settings, or those of a part of it, do not fit the model.
template <class Policy>
void validate_shape(const Policy& policy, const ShapeList& shape, Caller caller) {
  if constexpr (requires { policy.validate_shape(shape, caller); })
    policy.validate_shape(shape, caller);
}
/// Whether the policy would do nothing without a budget; a cache in which it has none is refused.
template <class Policy>
constexpr bool needs_budget() {
  if constexpr (requires { Policy::needs_budget; }) return Policy::needs_budget;
  return false;
}
/// Whether the heads of a layer share its budget.
template <class Policy>
constexpr bool allocates() {
  return requires(const Policy policy) {
    { policy.allocation() } -> std::same_as<Allocation>;
  };
}
/// Whether the policy can ever evict; where it cannot, nothing is ranked.
template <class Policy>
constexpr bool evicts() {
  if constexpr (requires { Policy::evicts; }) return Policy::evicts;
  return true;
}

}  // namespace detail

/// True, or compilation stops at the first sentence that the policy does not meet. End every policy
/// file with `static_assert(check_policy<Name>());`.
template <class Policy>
consteval bool check_policy() {
  static_assert(std::is_trivially_copyable_v<Policy>,
                "kvast policy: must be trivially copyable, so that it can be passed to a kernel");
  static_assert(detail::HasNeeds<Policy>,
                "kvast policy: must say what it needs: static constexpr Needs needs{...};");
  static_assert(detail::HasState<Policy>,
                "kvast policy: must have a State per token: struct State {}; if it keeps none");
  if constexpr (detail::HasNeeds<Policy> && detail::HasState<Policy>) {
    static_assert(std::is_trivially_copyable_v<typename Policy::State>,
                  "kvast policy: State must be trivially copyable, it moves with its token");
    static_assert(sizeof(typename Policy::State) <= 256,
                  "kvast policy: State must be at most 256 bytes, there is one per token and head");
    static_assert(alignof(typename Policy::State) <= 16,
                  "kvast policy: State must be aligned to at most 16 bytes, as its memory is");
    static_assert(!Policy::needs.attention || detail::Observes<Policy> || detail::Composite<Policy>,
                  "kvast policy: needs attention, so it must have "
                  "void observe(State&, Attention) const");
    static_assert(Policy::needs.attention || !detail::Observes<Policy>,
                  "kvast policy: has observe() but does not need attention, so it would never be "
                  "called: set needs.attention");
    static_assert(!detail::HasOddBudget<Policy>,
                  "kvast policy: budget must be Budget budget(Layer) const");
    static_assert(!detail::HasOddWhen<Policy>,
                  "kvast policy: when must be a member, When when = When::step();");
    static_assert(!detail::HasOddPooling<Policy>,
                  "kvast policy: pooling must be a member, Pooling pooling{...};");
    static_assert(!detail::HasOddPins<Policy>, "kvast policy: pins must be Pins pins() const");
    static_assert(!detail::HasOddValidate<Policy>,
                  "kvast policy: validate must be void validate(Caller) const");
    static_assert(!detail::HasOddShapes<Policy>,
                  "kvast policy: validate_shape must be "
                  "void validate_shape(const ShapeList&, Caller) const");
    static_assert(!detail::RanksTokens<Policy> || !detail::RanksWholeHeads<Policy>,
                  "kvast policy: has both rank(Token, State) and rank_head, so one of them would "
                  "never be called");
    static_assert(!detail::Weighs<Policy> || Policy::needs.attention,
                  "kvast policy: has weigh() but does not need attention, so it would never be "
                  "called: set needs.attention");
    static_assert(!detail::HasOddWindow<Policy>,
                  "kvast policy: window_rows must be int window_rows() const");
    static_assert(!detail::HasHead<Policy> || detail::RanksByHead<Policy>,
                  "kvast policy: has a Head, so it must have Head summarize(Token, State) const, "
                  "Head merge(Head, Head) const and float rank(Token, State, Head) const");
    static_assert(
        !detail::HasChoice<Policy> || (detail::Chooses<Policy> && Policy::needs.whole_prompt),
        "kvast policy: has a Choice, so it must need attention and whole_prompt, and have "
        "a Profile, marks, frequency, mark, profile, merge, choose, room and "
        "rank(Token, State, Choice) (see FastGen)");
    static_assert(detail::HasChoice<Policy> || detail::HasHead<Policy> ||
                      detail::RanksTokens<Policy> || detail::RanksWholeHeads<Policy> ||
                      detail::Composite<Policy>,
                  "kvast policy: must have float rank(Token, State) const, or "
                  "void rank_head(HeadView<State>, std::span<float> ranks) const");
    static_assert(!Policy::needs.query_moments || detail::Composite<Policy> ||
                      (Policy::needs.vectors && Policy::needs.whole_prompt &&
                       requires(const Policy policy) { policy.moments_from(); }),
                  "kvast policy: needs query_moments, so it must need vectors and whole_prompt as "
                  "well, and have int moments_from() const");
    static_assert(
        !Policy::needs.vectors || detail::RanksWholeHeads<Policy> || detail::Composite<Policy>,
        "kvast policy: needs vectors, so it must have "
        "void rank_head(HeadView<State>, std::span<float> ranks) const");
  }
  return true;
}

/// For `validate` of policies with these two fields: `recent` is no negative number, and fits into
/// the budget.
inline void check_kept(const char* policy, int tokens_kept, int recent, Caller caller) {
  require(recent >= 0, caller, policy, ".recent is ", recent, ", must be at least 0");
  require(tokens_kept >= 1 && tokens_kept >= recent, caller, policy, ".tokens_kept is ",
          tokens_kept, ", must be at least 1 and at least recent, ", recent);
}

/// A policy that the engine accepts; check_policy says why where one is not.
template <class Candidate>
concept Policy = check_policy<Candidate>();

}  // namespace kvast
