// SPDX-License-Identifier: Apache-2.0
// What an engine may ask of one call of attend on the device.
#pragma once

#include <cstdint>

namespace kvast::gpu {

/// Added to the logits: `data[sequence * sequence_stride + query_head * head_stride + position]`,
/// device memory, for every position kept so far.
struct Bias {
  const float* data = nullptr;
  std::int64_t sequence_stride = 0;  ///< 0: one table for all sequences
  std::int64_t head_stride = 0;      ///< 0: one row for all query heads
};

/// As kvast::AttendOptions, with arrays in device memory that the kernels read or write when the
/// stream gets there. Rows are those of the queries: the tokens of a pass, sequence after sequence.
struct AttendOptions {
  float scale = 0.0F;            ///< factor on q.k; 0: 1 / sqrt(head_dim)
  float softcap = 0.0F;          ///< logits become softcap * tanh(logits / softcap); 0: none
  int window = 0;                ///< only keys younger than `window` positions are visible; 0: all
  const float* sinks = nullptr;  ///< [query_heads] logits that take part in the softmax only
  Bias bias{};
  float* log_sum_exp = nullptr;  ///< [rows, query_heads] out
};

}  // namespace kvast::gpu
