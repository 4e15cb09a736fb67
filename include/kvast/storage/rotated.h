// SPDX-License-Identifier: Apache-2.0
// Rotated<S> and TurboQuant<Bits>: keys and values are rotated before a format sees them.
#pragma once

#include <cstdint>

#include "kvast/format/codebook.h"
#include "kvast/storage/coded.h"

namespace kvast {

namespace detail {

/// Keys and values are rotated each in its own way.
inline void rotate(StoragePlan& plan, std::uint64_t seed) {
  plan.key_basis.rotates = plan.value_basis.rotates = true;
  plan.key_basis.seed = seed;
  plan.value_basis.seed = seed + 1;
}

}  // namespace detail

/// Another storage whose keys and values are rotated when they arrive, each query with them, and
/// the output back: a channel with outliers no longer spoils its neighbours' codes. Keys arrive
/// after RoPE. What is exported, or shown to policies, is turned back.
template <class Inner>
struct Rotated : Inner {
  std::uint64_t seed = 1;

  template <class Simd>
  StoragePlan plan(int layer) const {
    StoragePlan plan = Inner::template plan<Simd>(layer);
    if (plan.coded_keys == nullptr) return plan;  // nothing is quantised: nothing to spread
    require(!plan.key_basis.rotates, Caller::here(),
            "Rotated: the storage underneath rotates already; give one");
    detail::rotate(plan, seed);
    return plan;
  }
};

/// Codes with the levels that are best for normal numbers, after a rotation that makes numbers
/// normal. Ref: TurboQuant, arXiv:2504.19874, the MSE variant; here each group of 32 has a scale
/// of its own, keys along tokens and values along channels.
template <int KeyBits, int ValueBits = KeyBits>
struct TurboQuant {
  int residual = 0;  ///< newest tokens that stay f16
  KeepDense keep{};
  std::uint64_t seed = 1;

  template <class Simd>
  StoragePlan plan(int layer) const {
    StoragePlan plan =
        detail::coded_plan<Codebook<KeyBits>, Codebook<ValueBits>, Simd>(layer, residual, keep);
    if (plan.coded_keys != nullptr) detail::rotate(plan, seed);
    return plan;
  }
  void validate(Caller caller) const { detail::check_coded("TurboQuant", residual, keep, caller); }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    detail::check_layers("TurboQuant", keep, shape, caller);
  }
};
static_assert(Storage<TurboQuant<3>>);

}  // namespace kvast
