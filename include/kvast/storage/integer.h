// SPDX-License-Identifier: Apache-2.0
// Int8 and Int4: codes as soon as a block is full.
#pragma once

#include "kvast/format/integer.h"
#include "kvast/storage/coded.h"

namespace kvast {

namespace detail {

/// A token waits in f16 only until the block of 32 that it belongs to is full.
template <int Bits>
struct IntegerStorage {
  KeepDense keep{};

  template <class Simd>
  StoragePlan plan(int layer) const {
    return coded_plan<Int<Bits>, Int<Bits>, Simd>(layer, 0, keep);
  }
  void validate(Caller caller) const { check_coded(Bits == 8 ? "Int8" : "Int4", 0, keep, caller); }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    check_layers(Bits == 8 ? "Int8" : "Int4", keep, shape, caller);
  }
};

}  // namespace detail

/// 34 bytes per 32 numbers: keys with a scale per channel, values with one per token and 32
/// channels, both symmetric.
using Int8 = detail::IntegerStorage<8>;
/// 20 bytes per 32 numbers: scales and minima.
using Int4 = detail::IntegerStorage<4>;
static_assert(Storage<Int8> && Storage<Int4>);

}  // namespace kvast
