// SPDX-License-Identifier: Apache-2.0
// Kivi<KeyBits, ValueBits>: keys quantised per channel, values per token, the newest tokens kept in
// f16.
#pragma once

#include "kvast/format/integer.h"
#include "kvast/storage/coded.h"

namespace kvast {

/// Ref: KIVI, arXiv:2402.02750, §3; groups of 32; 2, 3, 4 or 8 bits (8 symmetric).
/// With n live tokens, the 32 * floor((n - residual) / 32) oldest are sealed in blocks of 32 for
/// keys and values alike; the authors seal keys `residual` at a time and values one by one.
template <int KeyBits, int ValueBits = KeyBits>
struct Kivi {
  int residual = 128;  ///< newest tokens that stay f16 (up to 31 more wait for their block to fill)
  KeepDense keep{};

  template <class Simd>
  StoragePlan plan(int layer) const {
    return detail::coded_plan<Int<KeyBits>, Int<ValueBits>, Simd>(layer, residual, keep);
  }
  void validate(Caller caller) const { detail::check_coded("Kivi", residual, keep, caller); }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    detail::check_layers("Kivi", keep, shape, caller);
  }
};
static_assert(Storage<Kivi<4>> && Storage<Kivi<4, 2>>);

}  // namespace kvast
