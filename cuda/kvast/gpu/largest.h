// SPDX-License-Identifier: Apache-2.0
// The largest numbers that a device's storage takes.
#pragma once

#include <algorithm>

#include "kvast/core/half.h"
#include "kvast/format/floats.h"

namespace kvast::gpu {

namespace detail {

/// The largest magnitude that both formats hold.
template <class Format>
constexpr float largest_of() {
  if constexpr (DenseFormat<Format>) return Format::kLargest;
  return kHalfMax;
}
template <class One, class Other>
constexpr float largest() {
  return std::min(largest_of<One>(), largest_of<Other>());
}

}  // namespace detail

}  // namespace kvast::gpu
