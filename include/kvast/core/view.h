// SPDX-License-Identifier: Apache-2.0
// The caller's tensors: f32, f16 or bf16, packed or strided, never owned.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "kvast/core/bfloat16.h"
#include "kvast/core/half.h"

namespace kvast {

/// Strides beyond it are refused: products with token and head counts then cannot overflow.
inline constexpr std::int64_t kMostStride = std::int64_t{1} << 40U;

enum class Type : std::uint8_t { f32, f16, bf16 };

/// A number of the caller's tensors.
template <class Number>
concept TensorNumber = std::is_same_v<Number, float> || std::is_same_v<Number, half> ||
    std::is_same_v<Number, bfloat16>;

template <TensorNumber Number>
inline constexpr Type kType = std::is_same_v<Number, float>  ? Type::f32
                              : std::is_same_v<Number, half> ? Type::f16
                                                             : Type::bf16;

/// `[tokens, heads, dim]` in the caller's memory, read during the call only; `dim` is contiguous.
/// Strides are in elements, 0 means packed. A span carries its size, which is then checked.
struct View {
  const void* data = nullptr;
  Type type = Type::f32;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t elements = -1;  ///< how many may be read; -1: the caller vouches for it

  View() = default;
  template <TensorNumber Number>
  View(const Number* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), type(kType<Number>), token_stride(token), head_stride(head) {}
  template <class Number>
  requires TensorNumber<std::remove_const_t<Number>> View(std::span<Number> values)
      : data(values.data()),
        type(kType<std::remove_const_t<Number>>),
        elements(static_cast<std::int64_t>(values.size())) {}
};

/// As View, written during the call.
struct OutputView {
  void* data = nullptr;
  Type type = Type::f32;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t elements = -1;

  OutputView() = default;
  template <TensorNumber Number>
  OutputView(Number* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), type(kType<Number>), token_stride(token), head_stride(head) {}
  template <TensorNumber Number>
  OutputView(std::span<Number> values)
      : data(values.data()),
        type(kType<Number>),
        elements(static_cast<std::int64_t>(values.size())) {}
};

/// `dim` numbers of the caller's tensor from element `at` on, as floats.
inline void read_numbers(const View& view, std::int64_t at, int dim, float* to) {
  const auto convert = [&]<class Number>(const Number* from) {
    for (int index = 0; index < dim; ++index) to[index] = to_float(from[index]);
  };
  switch (view.type) {
    case Type::f32:
      std::memcpy(to, static_cast<const float*>(view.data) + at,
                  static_cast<std::size_t>(dim) * sizeof(float));
      break;
    case Type::f16:
      convert(static_cast<const half*>(view.data) + at);
      break;
    case Type::bf16:
      convert(static_cast<const bfloat16*>(view.data) + at);
      break;
  }
}

/// Writes `dim` floats to the caller's tensor from element `at` on.
inline void write_numbers(const OutputView& view, std::int64_t at, int dim, const float* from) {
  switch (view.type) {
    case Type::f32:
      std::memcpy(static_cast<float*>(view.data) + at, from,
                  static_cast<std::size_t>(dim) * sizeof(float));
      break;
    case Type::f16:
      for (int index = 0; index < dim; ++index)
        static_cast<half*>(view.data)[at + index] = to_half(from[index]);
      break;
    case Type::bf16:
      for (int index = 0; index < dim; ++index)
        static_cast<bfloat16*>(view.data)[at + index] = to_bfloat16(from[index]);
      break;
  }
}

}  // namespace kvast
