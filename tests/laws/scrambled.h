// SPDX-License-Identifier: Apache-2.0
// A policy whose survivors lie in other slots: first it drops junk, in one of two orders.
#pragma once

#include <span>
#include <type_traits>

#include "kvast/core/check_policy.h"
#include "kvast/policy/composites.h"

namespace kvast::test {

/// In which order the junk of the first two passes goes; with none there is no junk.
enum class Scramble { none, one_way, other_way };

// Junk is young: what coded storages seal after the first pass are other tokens, the same ones in
// either order.
inline constexpr int kJunkBegin = 64;
inline constexpr int kFirstScrambled = 112;  ///< tokens of the first pass, whose newest are junk
inline constexpr int kSecondScrambled = 8;   ///< tokens of the second pass: some act every 6 tokens

/// Kinds of junk: 1 and 2; 0 is none.
inline int junk_kind(int position) {
  return position >= kJunkBegin && position < kFirstScrambled ? position % 3 : 0;
}

/// What a scrambled pass says of a token: the first kind of junk goes, then the second one.
inline float verdict(Scramble scramble, Token t) {
  const int kind = junk_kind(t.position);
  const int first = scramble == Scramble::one_way ? 1 : 2;
  const bool both =
      t.position + t.age >= kFirstScrambled;  // the newest token is of the second pass
  return kind == first || (both && kind != 0) ? kDrop : kPin;
}

/// Another policy. Scrambled, it begins its work in the third pass: in the first one goes one kind
/// of junk, in the second one the other, and the holes they leave are filled in between. Either
/// order shows the policy the same tokens, weights and counts, so what it keeps must be the same.
template <class Inner>
struct Scrambled : Inner {
  Scramble scramble = Scramble::none;
  using State = typename Inner::State;

  float rank(Token t, const State& s) const
      requires(detail::RanksTokens<Inner> && !detail::RanksByHead<Inner>) {
    return scrambles(t) ? verdict(scramble, t) : Inner::rank(t, s);
  }
  template <class Head>
  float rank(Token t, const State& s, const Head& head) const
      requires(detail::RanksByHead<Inner> || detail::Chooses<Inner>) {
    return scrambles(t) ? verdict(scramble, t) : Inner::rank(t, s, head);
  }
  void rank_head(HeadView<State> view,
                 std::span<float> ranks) const requires detail::RanksWholeHeads<Inner> {
    if (view.tokens.empty() || !scrambles(view.tokens.front()))
      return Inner::rank_head(view, ranks);
    for (std::size_t at = 0; at < ranks.size(); ++at)
      ranks[at] = verdict(scramble, view.tokens[at]);
  }

 private:
  bool scrambles(Token t) const {
    return scramble != Scramble::none &&
           t.position + t.age < kFirstScrambled + kSecondScrambled;  // of the newest token
  }
};

/// The policy, scrambled; of one made of others, each part.
template <class Policy>
Scrambled<Policy> scramble_policy(Policy policy, Scramble scramble) {
  return {policy, scramble};
}
template <class Listed, class Rest>
auto scramble_policy(const PerLayer<Listed, Rest>& policy, Scramble scramble) {
  const auto listed = scramble_policy(policy.listed, scramble);
  const auto rest = scramble_policy(policy.rest, scramble);
  return PerLayer<std::remove_const_t<decltype(listed)>, std::remove_const_t<decltype(rest)>>{
      listed, rest, policy.layers};
}
template <class Listed, class Rest>
auto scramble_policy(const PerHead<Listed, Rest>& policy, Scramble scramble) {
  return PerHead<Scrambled<Listed>, Scrambled<Rest>>{
      {policy.listed, scramble}, {policy.rest, scramble}, policy.heads};
}
template <class Prefill, class Decode>
auto scramble_policy(const PrefillThenDecode<Prefill, Decode>& policy, Scramble scramble) {
  const auto prefill = scramble_policy(policy.prefill, scramble);
  const auto decode = scramble_policy(policy.decode, scramble);
  return PrefillThenDecode<std::remove_const_t<decltype(prefill)>,
                           std::remove_const_t<decltype(decode)>>{prefill, decode};
}

}  // namespace kvast::test
