// SPDX-License-Identifier: Apache-2.0
// The contract of a format: a codec of one group of at most 32 numbers.
#pragma once

#include <concepts>
#include <cstddef>

#include "kvast/core/half.h"
#include "kvast/core/shape.h"

namespace kvast {

/// Metadata of a group: value = scale * code + minimum. Stored as half, and rounded before codes
/// are computed, so that encoding and decoding use the same numbers.
struct Affine {
  half scale{};
  half minimum{};
};

/// A format says how a group of `width` (8, 16, 24 or 32) neighbouring numbers is stored:
///   kPlanes            halves of metadata per group: 0 none, 2 scale and minimum
///   kDense             single numbers can be written and moved (no metadata, whole bytes)
///   group_bytes(width) bytes of a group's codes
///   encode(numbers, width, codes, affine)
///   lanes<Simd>(codes, vector)   codes as floats, Simd::kLanes of them from lane vector * kLanes
///   on code(codes, lane)            one code as a float
template <class Candidate>
concept Format = requires(const float* numbers, std::byte* codes, Affine& affine) {
  { Candidate::kPlanes } -> std::convertible_to<int>;
  { Candidate::kDense } -> std::convertible_to<bool>;
  { Candidate::group_bytes(32) } -> std::same_as<std::size_t>;
  Candidate::encode(numbers, 32, codes, affine);
  { Candidate::code(codes, 0) } -> std::same_as<float>;
};

}  // namespace kvast
