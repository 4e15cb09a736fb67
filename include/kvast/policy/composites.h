// SPDX-License-Identifier: Apache-2.0
// Policies made of two others: by layer, by head, or by what the pass is.
#pragma once

#include "kvast/core/compose.h"
#include "kvast/core/sets.h"

namespace kvast {

namespace detail {

template <class Policy>
void validate_part(const Policy& policy, Caller caller) {
  if constexpr (requires { policy.validate(caller); }) policy.validate(caller);
}
/// A part for decoding that acts at prompts' ends only would never act.
template <class Policy>
void require_acts_in_decoding(const Policy& policy, Caller caller) {
  if constexpr (splits<Policy, Split::heads>()) {
    require_acts_in_decoding(policy.listed, caller);
    require_acts_in_decoding(policy.rest, caller);
  } else if constexpr (evicts<Policy>()) {
    require(when_of(policy).kind != When::Kind::prompt, caller,
            "PrefillThenDecode.decode: ", type_name<Policy>,
            " acts at prompts' ends only (when), so it would never act");
  }
}
template <class First, class Second>
constexpr bool either_evicts() {
  return evicts<First>() || evicts<Second>();
}

}  // namespace detail

/// One policy for some layers, another for the rest. Each layer pays for its own only: under Full
/// it has no state and is shown no weights. Must be the outermost of several composites.
/// State: that of the layer's policy.
template <class Listed, class Rest>
struct PerLayer {
  Listed listed;
  Rest rest;
  LayerSet layers = LayerSet::first(2);  ///< those that `listed` decides for
  static constexpr Split split = Split::layers;
  static constexpr Needs needs = Listed::needs | Rest::needs;
  static constexpr bool evicts = detail::either_evicts<Listed, Rest>();
  struct State {};  ///< never stored: the layer's policy has its own
  static_assert(check_policy<Listed>() && check_policy<Rest>());

  template <class Body>
  void of(int layer, Body&& body) const {
    if (layers.contains(layer)) {
      body(listed);
    } else {
      body(rest);
    }
  }
  template <class Body>
  void each(Body&& body) const {
    body(listed);
    body(rest);
  }
  void validate(Caller caller) const {
    detail::validate_part(listed, caller);
    detail::validate_part(rest, caller);
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    require(layers.end() <= shape.layers(), caller, "PerLayer.layers has layer ", layers.end() - 1,
            ", the cache has ", shape.layers());
    detail::validate_shape(listed, shape, caller);
    detail::validate_shape(rest, shape, caller);
  }
};

/// One policy for some kv heads, another for the rest: Full for the heads that retrieve,
/// StreamingLLM for the others (DuoAttention, arXiv:2410.10819). Both must decide head by head.
/// State: those of both.
template <class Listed, class Rest>
struct PerHead {
  Listed listed;
  Rest rest;
  HeadSet heads;  ///< those that `listed` decides for
  static constexpr Split split = Split::heads;
  static constexpr Needs needs = Listed::needs | Rest::needs;
  static constexpr bool evicts = detail::either_evicts<Listed, Rest>();
  static constexpr bool weighs = detail::Weighs<Listed> || detail::Weighs<Rest>;
  struct State {
    typename Listed::State listed;
    typename Rest::State rest;
  };
  static_assert(check_policy<Listed>() && check_policy<Rest>());
  static_assert(!detail::Composite<Listed> && !detail::Composite<Rest>,
                "PerHead: its parts must not be made of others; put it inside the other composite");
  static_assert(detail::scope_of<Listed>() == Scope::head &&
                    detail::scope_of<Rest>() == Scope::head,
                "PerHead: a policy whose heads keep one set (TOVA) decides for whole layers: use "
                "PerLayer");
  static_assert(!detail::allocates<Listed>() && !detail::allocates<Rest>(),
                "PerHead: heads that share a budget (AdaHeads) are decided together: use PerLayer");
  static_assert(!detail::Chooses<Listed> && !detail::Chooses<Rest>,
                "PerHead: a policy that chooses by head itself (FastGen) decides for whole layers: "
                "use PerLayer");

  static_assert(!(Listed::needs.query_moments && Rest::needs.query_moments),
                "PerHead: only one part may need query_moments");

  template <class Body>
  void of(int layer, int head, Body&& body) const {
    if (heads.contains(layer, head)) {
      body(detail::Part<Listed, State, &State::listed>{listed});
    } else {
      body(detail::Part<Rest, State, &State::rest>{rest});
    }
  }
  /// body(part, heads)
  template <class Body>
  void each(Body&& body) const {
    body(detail::Part<Listed, State, &State::listed>{listed}, PartHeads{heads, true});
    body(detail::Part<Rest, State, &State::rest>{rest}, PartHeads{heads, false});
  }
  void validate(Caller caller) const {
    detail::validate_part(listed, caller);
    detail::validate_part(rest, caller);
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    for (int layer = 0; layer < HeadSet::kMost; ++layer) {
      const int there = layer < shape.layers() ? shape[layer].heads : 0;
      require(heads.end(layer) <= there, caller, "PerHead.heads has head ", heads.end(layer) - 1,
              " of layer ", layer, ", where the cache has ", there, " heads");
    }
    detail::validate_shape(listed, shape, caller);
    detail::validate_shape(rest, shape, caller);
  }
};

/// One policy acts once at each prompt's end, whatever its habit, another after every other pass:
/// SnapKV for the prompt, H2O for what is generated. The second sees the prompt's attention too;
/// the first sees prompts only, so a second prompt's choice knows nothing of what was generated
/// between. State: those of both.
template <class Prefill, class Decode>
struct PrefillThenDecode {
  Prefill prefill;
  Decode decode;
  static constexpr Split split = Split::phases;
  static constexpr Needs needs = Prefill::needs | Decode::needs;
  static constexpr bool evicts = detail::either_evicts<Prefill, Decode>();
  struct State {
    typename Prefill::State prefill;
    typename Decode::State decode;
  };
  static_assert(check_policy<Prefill>() && check_policy<Decode>());
  static_assert(!detail::splits<Prefill, Split::layers>() &&
                    !detail::splits<Decode, Split::layers>() &&
                    !detail::splits<Prefill, Split::phases>() &&
                    !detail::splits<Decode, Split::phases>(),
                "PrefillThenDecode: its parts may be PerHead, but not PerLayer, which must be the "
                "outermost, nor PrefillThenDecode");

  static constexpr bool kPrefillShares = detail::scope_of<Prefill>() == Scope::layer;
  static constexpr bool kDecodeShares = detail::scope_of<Decode>() == Scope::layer;
  static_assert(
      (!kDecodeShares || kPrefillShares || !detail::evicts<Prefill>()) &&
          (!kPrefillShares || kDecodeShares || !detail::evicts<Decode>()),
      "PrefillThenDecode: where one part keeps one set per layer (TOVA), the other must as "
      "well, or keep everything");
  static_assert(!(detail::Chooses<Prefill> && detail::Chooses<Decode>),
                "PrefillThenDecode: only one part may choose a rule for each head (FastGen)");
  static_assert(!Decode::needs.query_moments,
                "PrefillThenDecode: query_moments exist at prompts' ends only");

  template <class Body>
  void of(bool ends_prompt, Body&& body) const {
    if (ends_prompt) {
      body(detail::Part<Prefill, State, &State::prefill, true>{prefill});
    } else {
      body(detail::Part<Decode, State, &State::decode>{decode});
    }
  }
  template <class Body>
  void each(Body&& body) const {
    of(true, body);
    of(false, body);
  }
  void validate(Caller caller) const {
    detail::validate_part(prefill, caller);
    detail::validate_part(decode, caller);
    detail::require_acts_in_decoding(decode, caller);
  }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    detail::validate_shape(prefill, shape, caller);
    detail::validate_shape(decode, shape, caller);
  }
};

}  // namespace kvast
