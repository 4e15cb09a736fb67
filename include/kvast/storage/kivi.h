// SPDX-License-Identifier: Apache-2.0
// Kivi<Bits>: keys quantised per channel, values per token, the newest tokens kept in f16.
#pragma once

#include "kvast/format/floats.h"
#include "kvast/format/integer.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// Ref: KIVI, arXiv:2402.02750, §3; groups of 32.
/// With n live tokens, the 32 * floor((n - residual) / 32) oldest are sealed in blocks of 32 for
/// keys and values alike; the authors seal keys `residual` at a time and values one by one.
template <int Bits>
struct Kivi {
  int residual = 128;  ///< newest tokens that stay f16 (up to 31 more wait for their block to fill)

  template <class Simd>
  StoragePlan plan(int) const {
    return {.dense_keys = &kCodec<F16, Simd>,
            .dense_values = &kCodec<F16, Simd>,
            .coded_keys = &kCodec<Int<Bits>, Simd>,
            .coded_values = &kCodec<Int<Bits>, Simd>,
            .residual = residual};
  }
  void validate(Caller caller) const {
    require(residual >= 0 && residual <= (1 << 20), caller, "Kivi.residual is ", residual,
            ", must lie in [0, 2^20]");
  }
};
static_assert(Storage<Kivi<4>>);

}  // namespace kvast
