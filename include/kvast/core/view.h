// SPDX-License-Identifier: Apache-2.0
// The caller's tensors: f32 or f16, packed or strided, never owned.
#pragma once

#include <cstdint>
#include <span>

#include "kvast/core/half.h"

namespace kvast {

/// Strides beyond it are refused: products with token and head counts then cannot overflow.
inline constexpr std::int64_t kMostStride = std::int64_t{1} << 40U;

enum class Type : std::uint8_t { f32, f16 };

/// `[tokens, heads, dim]` in the caller's memory, read during the call only; `dim` is contiguous.
/// Strides are in elements, 0 means packed. A span carries its size, which is then checked.
struct View {
  const void* data = nullptr;
  Type type = Type::f32;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t elements = -1;  ///< how many may be read; -1: the caller vouches for it

  View() = default;
  View(const float* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), token_stride(token), head_stride(head) {}
  View(const half* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), type(Type::f16), token_stride(token), head_stride(head) {}
  View(std::span<const float> values)
      : data(values.data()), elements(static_cast<std::int64_t>(values.size())) {}
  View(std::span<const half> values)
      : data(values.data()), type(Type::f16), elements(static_cast<std::int64_t>(values.size())) {}
};

/// As View, written during the call.
struct OutputView {
  void* data = nullptr;
  Type type = Type::f32;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t elements = -1;

  OutputView() = default;
  OutputView(float* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), token_stride(token), head_stride(head) {}
  OutputView(half* values, std::int64_t token = 0, std::int64_t head = 0)
      : data(values), type(Type::f16), token_stride(token), head_stride(head) {}
  OutputView(std::span<float> values)
      : data(values.data()), elements(static_cast<std::int64_t>(values.size())) {}
  OutputView(std::span<half> values)
      : data(values.data()), type(Type::f16), elements(static_cast<std::int64_t>(values.size())) {}
};

}  // namespace kvast
