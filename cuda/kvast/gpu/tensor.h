// SPDX-License-Identifier: Apache-2.0
// The caller's tensors in device memory: f32, f16 or bf16, packed or strided, never owned.
#pragma once

#include <cstdint>

#include "kvast/core/host_device.h"
#include "kvast/core/view.h"
#include "kvast/format/floats.h"

namespace kvast::gpu {

using bfloat16 = BF16::Element;
enum class Element : std::uint8_t { f32, f16, bf16 };

KVAST_HD constexpr std::size_t element_bytes(Element type) { return type == Element::f32 ? 4 : 2; }

namespace detail {

/// `[rows, heads, dim]`, `dim` contiguous; rows are the tokens of a pass, sequence after sequence.
/// Strides are in elements; 0 means packed.
template <class Void, class Float, class Half, class Bfloat>
struct Strided {
  Void* data = nullptr;
  Element type = Element::f32;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;

  Strided() = default;
  Strided(Void* values, Element element, std::int64_t row = 0, std::int64_t head = 0)
      : data(values), type(element), row_stride(row), head_stride(head) {}
  Strided(Float* values, std::int64_t row = 0, std::int64_t head = 0)
      : Strided(values, Element::f32, row, head) {}
  Strided(Half* values, std::int64_t row = 0, std::int64_t head = 0)
      : Strided(values, Element::f16, row, head) {}
  Strided(Bfloat* values, std::int64_t row = 0, std::int64_t head = 0)
      : Strided(values, Element::bf16, row, head) {}

  KVAST_HD std::int64_t at(std::int64_t row, int head) const {
    return row * row_stride + head * head_stride;
  }
  /// A copy with its strides filled in. Throws Error for null data and strides out of range.
  Strided checked(const char* what, int heads, int dim, Caller caller) const {
    Strided full = *this;
    if (full.head_stride == 0) full.head_stride = dim;
    if (full.row_stride == 0) full.row_stride = std::int64_t{heads} * full.head_stride;
    require(data != nullptr, caller, what, " must not be null");
    require(full.row_stride >= dim && full.head_stride >= dim && full.row_stride <= kMostStride &&
                full.head_stride <= kMostStride,
            caller, what, ": strides are ", row_stride, " and ", head_stride,
            ", must be 0 or lie in [", dim, ", 2^40]");
    return full;
  }
};

}  // namespace detail

/// Read by the kernels that a call starts: it must stay as it is until the stream has passed them.
using Tensor = detail::Strided<const void, const float, const half, const bfloat16>;
/// Written by them.
using OutputTensor = detail::Strided<void, float, half, bfloat16>;

KVAST_HD inline float read_number(const Tensor& from, std::int64_t at) {
  if (from.type == Element::f16) return to_float(static_cast<const half*>(from.data)[at]);
  if (from.type == Element::bf16) return BF16::number(static_cast<const bfloat16*>(from.data)[at]);
  return static_cast<const float*>(from.data)[at];
}
KVAST_HD inline void write_number(const OutputTensor& to, std::int64_t at, float number) {
  if (to.type == Element::f16) {
    static_cast<half*>(to.data)[at] = to_half(number);
  } else if (to.type == Element::bf16) {
    static_cast<bfloat16*>(to.data)[at] = BF16::element(number);
  } else {
    static_cast<float*>(to.data)[at] = number;
  }
}

}  // namespace kvast::gpu
