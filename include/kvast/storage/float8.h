// SPDX-License-Identifier: Apache-2.0
// Float8<Kind>: eight-bit floats.
#pragma once

#include "kvast/format/fp8.h"
#include "kvast/storage/coded.h"

namespace kvast {

/// 1 byte per number, no metadata; what the kind cannot hold becomes its largest number (448 for
/// E4M3). A token waits in f16 until its block of 32 is full.
template <class Kind = E4M3>
struct Float8 {
  KeepDense keep{};

  template <class Simd>
  StoragePlan plan(int layer) const {
    return detail::coded_plan<Fp8<Kind>, Fp8<Kind>, Simd>(layer, 0, keep);
  }
  void validate(Caller caller) const { detail::check_coded("Float8", 0, keep, caller); }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    detail::check_layers("Float8", keep, shape, caller);
  }
};
static_assert(Storage<Float8<E4M3>> && Storage<Float8<E5M2>>);

}  // namespace kvast
