// SPDX-License-Identifier: Apache-2.0
// The contract of a format: how a group of at most 32 neighbouring numbers is stored.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "kvast/core/half.h"
#include "kvast/core/shape.h"

namespace kvast {

/// Metadata of a group: value = scale * level + minimum. Stored as half, and rounded before codes
/// are computed, so that encoding and decoding use the same numbers.
struct Affine {
  half scale{};
  half minimum{};
};

/// Numbers as they are, each in a few whole bytes; single ones can be written and moved:
///   Element             what is stored
///   element(float)      to it
///   number(Element)     and back
///   lanes<Simd>(elements)   Simd::kLanes of them as floats
///   kLargest            magnitudes above this are refused when they arrive
template <class Candidate>
concept DenseFormat = requires(typename Candidate::Element element) {
  { Candidate::kName } -> std::convertible_to<const char*>;
  { Candidate::element(1.0F) } -> std::same_as<typename Candidate::Element>;
  { Candidate::number(element) } -> std::same_as<float>;
  { Candidate::kLargest } -> std::convertible_to<float>;
};

/// Codes of kBits bits per number and metadata per group:
///   quantize(numbers, width, codes, affine)   width is 8, 16, 24 or 32
///   kPlanes             halves of metadata: 2 scale and minimum, 1 scale alone
///   kHasLevels          whether kLevels[code] stands in for the code in what follows; then
///                       level(code) is the same in device code
///   kOffset             level = code - kOffset; codes are below 128 where kDigits is 1
///   kDigits             bytes per number of the side that meets codes in a product. Rounding is
///                       relative to the row's largest number times its scale: 1 adds an error far
///                       below that of codes of at most 4 bits unless a few rows outweigh the
///                       others some ten times (Rotated evens them out), 2 below any
template <class Candidate>
concept CodedFormat = requires(const float* numbers, std::uint8_t* codes, Affine& affine,
                               int planes) {
  { Candidate::kName } -> std::convertible_to<const char*>;
  { Candidate::kBits } -> std::convertible_to<int>;
  { Candidate::kPlanes } -> std::convertible_to<int>;
  { Candidate::kHasLevels } -> std::convertible_to<bool>;
  { Candidate::kOffset } -> std::convertible_to<int>;
  { Candidate::kDigits } -> std::convertible_to<int>;
  Candidate::quantize(numbers, 32, codes, affine);
};

template <class Candidate>
concept Format = DenseFormat<Candidate> || CodedFormat<Candidate>;

}  // namespace kvast
