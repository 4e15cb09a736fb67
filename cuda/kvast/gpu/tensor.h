// SPDX-License-Identifier: Apache-2.0
// The caller's tensors in device memory: f32, f16 or bf16, packed or strided, never owned.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kvast/core/error.h"
#include "kvast/core/host_device.h"
#include "kvast/core/view.h"

namespace kvast::gpu {

namespace detail {

/// `[rows, heads, dim]`, `dim` contiguous; rows are the tokens of a pass, sequence after sequence.
/// Strides are in elements; 0 means packed.
template <class Void>
struct Strided {
  Void* data = nullptr;
  Type type = Type::f32;
  std::int64_t row_stride = 0;
  std::int64_t head_stride = 0;

  Strided() = default;
  Strided(Void* values, Type number, std::int64_t row = 0, std::int64_t head = 0)
      : data(values), type(number), row_stride(row), head_stride(head) {}
  template <class Number>
  requires TensorNumber<std::remove_const_t<Number>> && std::is_convertible_v<Number*, Void*>
  Strided(Number* values, std::int64_t row = 0, std::int64_t head = 0)
      : Strided(values, kType<std::remove_const_t<Number>>, row, head) {}

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
using Tensor = detail::Strided<const void>;
/// Written by them.
using OutputTensor = detail::Strided<void>;

KVAST_HD inline float read_number(const Tensor& from, std::int64_t at) {
  if (from.type == Type::f16) return to_float(static_cast<const half*>(from.data)[at]);
  if (from.type == Type::bf16) return to_float(static_cast<const bfloat16*>(from.data)[at]);
  return static_cast<const float*>(from.data)[at];
}
KVAST_HD inline void write_number(const OutputTensor& to, std::int64_t at, float number) {
  if (to.type == Type::f16) {
    static_cast<half*>(to.data)[at] = to_half(number);
  } else if (to.type == Type::bf16) {
    static_cast<bfloat16*>(to.data)[at] = to_bfloat16(number);
  } else {
    static_cast<float*>(to.data)[at] = number;
  }
}

}  // namespace kvast::gpu
