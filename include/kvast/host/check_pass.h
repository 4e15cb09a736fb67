// SPDX-License-Identifier: Apache-2.0
// What a pass refuses before it changes anything.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kvast/core/attend_options.h"
#include "kvast/core/shape.h"
#include "kvast/host/append.h"

namespace kvast::detail {

/// Fills in the strides of a view of [tokens, heads, dim], and refuses one that is too small.
template <class AnyView>
void check_extent(const char* name, AnyView& view, int tokens, int heads, int dim, Caller caller) {
  require(view.data != nullptr, caller, name, " must not be null");
  if (view.head_stride == 0) view.head_stride = dim;
  if (view.token_stride == 0 && view.head_stride <= kMostStride)
    view.token_stride = heads * view.head_stride;
  require(view.head_stride >= 0 && view.head_stride <= kMostStride && view.token_stride >= 0 &&
              view.token_stride <= kMostStride,
          caller, name, ": strides are ", view.token_stride, " and ", view.head_stride,
          ", must lie in [0, 2^40]");
  const std::int64_t needed =
      (tokens - 1) * view.token_stride + (heads - 1) * view.head_stride + dim;
  require(view.elements < 0 || view.elements >= needed, caller, name, " has ", view.elements,
          " elements, [", tokens, ", ", heads, ", ", dim, "] needs ", needed);
}
inline void check_numbers(const char* name, const View& view, int tokens, int heads, int dim,
                          float largest, Caller caller) {
  float numbers[512];
  for (int token = 0; token < tokens; ++token) {
    for (int head = 0; head < heads; ++head) {
      read_vector(view, token, head, dim, numbers);
      const float bad = first_unstorable(numbers, dim, largest);
      require(bad == 0.0F, caller, name, " of token ", token, ", head ", head, " hold ", bad,
              ", must be finite and at most ", largest);
    }
  }
}
inline void check_options(const AttendOptions& options, const Shape& shape, int count, int newest,
                          Caller caller) {
  require(std::isfinite(options.scale) && options.scale >= 0.0F, caller,
          "attend: options.scale is ", options.scale, ", must be finite and positive, or 0");
  require(std::isfinite(options.softcap) && options.softcap >= 0.0F, caller,
          "attend: options.softcap is ", options.softcap, ", must be finite and positive, or 0");
  require(options.window >= 0, caller, "attend: options.window is ", options.window,
          ", must be at least 0");
  require(options.sinks.empty() || static_cast<int>(options.sinks.size()) == shape.query_heads,
          caller, "attend: options.sinks has ", options.sinks.size(),
          " entries, must have query_heads = ", shape.query_heads);
  for (const float sink : options.sinks)
    require(!std::isnan(sink) && sink < std::numeric_limits<float>::infinity(), caller,
            "attend: options.sinks holds ", sink, ", must be a number, and not infinity");
  require(options.bias.data == nullptr || options.bias.head_stride >= 0, caller,
          "attend: options.bias.head_stride is ", options.bias.head_stride, ", must be at least 0");
  require(options.bias.data == nullptr || options.bias.positions > newest, caller,
          "attend: options.bias covers ", options.bias.positions, " positions, must cover ",
          newest + 1);
  require(options.log_sum_exp.empty() || static_cast<std::int64_t>(options.log_sum_exp.size()) ==
                                             std::int64_t{count} * shape.query_heads,
          caller, "attend: options.log_sum_exp has ", options.log_sum_exp.size(),
          " entries, must have tokens * query_heads = ", std::int64_t{count} * shape.query_heads);
}

}  // namespace kvast::detail
