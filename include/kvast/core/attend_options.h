// SPDX-License-Identifier: Apache-2.0
// What an engine may ask of one call of attend.
#pragma once

#include <cstdint>
#include <span>

namespace kvast {

/// Added to the logits: `data[query_head * head_stride + position]`, for every position kept so
/// far. ALiBi is slope * position, since a constant per query changes nothing; merged tokens add
/// the log of their count.
struct Bias {
  const float* data = nullptr;
  std::int64_t head_stride = 0;  ///< 0: one row for all query heads
  std::int64_t positions = 0;    ///< entries per row; at least length of the sequence
};

/// Defaults are plain scaled dot-product attention.
struct AttendOptions {
  float scale =
      0.0F;  ///< factor on q.k; 0: 1 / sqrt(head_dim). Low rank and MLA pass the original one.
  float softcap = 0.0F;  ///< logits become softcap * tanh(logits / softcap); 0: none (Gemma 2)
  int window = 0;        ///< only keys younger than `window` positions are visible; 0: all
  std::span<const float>
      sinks{};  ///< [query_heads] learned logits that take part in the softmax only (gpt-oss)
  Bias bias{};
  std::span<float>
      log_sum_exp{};  ///< [n, query_heads] out; partial results of a split sequence merge by it
};

}  // namespace kvast
