// SPDX-License-Identifier: Apache-2.0
// Wrappers that change when a policy acts and whom it must spare.
#pragma once

#include "kvast/core/check_policy.h"

#if defined(__CUDACC__)
// a wrapped policy's hook must be KVAST_HD, as its caller is
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast {

/// Another policy that never drops the first and the newest tokens. They count into its budget.
template <class Inner>
struct Protect : Inner {
  static_assert(!detail::Composite<Inner>,
                "Protect: wrap the parts of a policy made of others, not the whole");
  static_assert(
      !requires { Inner::kPlaces; },
      "Protect: the policy gives each token a place of its own (Cascading), and would "
      "give a protected one a place again and again");
  int sinks = 4;   ///< first tokens of the sequence
  int newest = 0;  ///< newest tokens
  using State = typename Inner::State;

  KVAST_HD float rank(Token t, const State& s) const
      requires(detail::RanksTokens<Inner> && !detail::RanksByHead<Inner>) {
    return spares(t) ? kPin : Inner::rank(t, s);
  }
  template <class Context>  // a Head, or a Choice
  KVAST_HD float rank(Token t, const State& s, const Context& context) const
      requires(detail::RanksByHead<Inner> || detail::Chooses<Inner>) {
    return spares(t) ? kPin : Inner::rank(t, s, context);
  }
  void rank_head(HeadView<State> view,
                 std::span<float> ranks) const requires detail::RanksWholeHeads<Inner> {
    Inner::rank_head(view, ranks);
    for (std::size_t at = 0; at < ranks.size(); ++at) {
      if (spares(view.tokens[at])) ranks[at] = kPin;
    }
  }
  KVAST_HD Pins pins() const {
    const Pins inner = detail::pins_of(static_cast<const Inner&>(*this));
    return {.first = sinks > inner.first ? sinks : inner.first,
            .newest = newest > inner.newest ? newest : inner.newest};
  }
  void validate(Caller caller) const {
    if constexpr (requires(const Inner& inner) { inner.validate(caller); }) Inner::validate(caller);
    require(sinks >= 0 && sinks <= (1 << 29), caller, "Protect.sinks is ", sinks,
            ", must lie in [0, 2^29]");
    require(newest >= 0 && newest <= (1 << 29), caller, "Protect.newest is ", newest,
            ", must lie in [0, 2^29]");
    if constexpr (requires(const Inner& inner) { inner.budget(Layer{}); }) {
      const Budget most = Inner::budget(Layer{});
      require(!most.limited() || (newest <= most.tokens && sinks <= most.tokens - newest), caller,
              "Protect.sinks + Protect.newest is ", sinks, " + ", newest,
              ", must be at most the budget, ", most.tokens);
    }
  }

 private:
  KVAST_HD bool spares(Token t) const { return t.position < sinks || t.age < newest; }
};

/// Another policy that drops `Batch` tokens at once when its budget is exceeded; without a budget
/// it decides every `Batch` tokens.
template <class Inner, int Batch>
struct Every : Inner {
  static_assert(!detail::Composite<Inner>,
                "Every: wrap the parts of a policy made of others, not the whole");
  static_assert(Batch >= 1, "Every: Batch must be at least 1");
  static_assert(
      !requires { Inner::kBatches; },
      "Every: the policy has a Batch already, which would not count");
  static constexpr bool kBatches = true;
  static_assert(!Inner::needs.query_moments,
                "Every: a policy that needs query_moments acts at prompts' ends only");
  static constexpr When when = When::full(Batch);
};

}  // namespace kvast

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
