// SPDX-License-Identifier: Apache-2.0
// Dense<float>, Dense<half> and Dense<BF16>: tokens as they are; an evicted token's slot is filled
// by the last one.
#pragma once

#include <type_traits>

#include "kvast/format/floats.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// n tokens of a head use exactly ceil(n / 32) blocks (under Positions::compacted, where nothing
/// moves, as many as still hold a token).
template <class Element>
struct Dense {
  static_assert(std::is_same_v<Element, float> || std::is_same_v<Element, half> ||
                    std::is_same_v<Element, BF16>,
                "Dense: the element is float, kvast::half or kvast::BF16");
  using Format = std::conditional_t<std::is_same_v<Element, BF16>, BF16,
                                    std::conditional_t<std::is_same_v<Element, float>, F32, F16>>;

  template <class Simd>
  StoragePlan plan(int) const {
    return {.dense_keys = &kCodec<Format, Simd>, .dense_values = &kCodec<Format, Simd>};
  }
  void validate(Caller) const {}
};
static_assert(Storage<Dense<float>> && Storage<Dense<half>> && Storage<Dense<BF16>>);

}  // namespace kvast
