// SPDX-License-Identifier: Apache-2.0
// A made-up model: keys, values and queries are functions of layer, head and position alone, so
// they are the same however tokens arrive.
#pragma once

#include <cstdint>
#include <vector>

#include "kvast/core/shape.h"
#include "tests/support/random.h"

namespace kvast::test {

enum class Kind : std::uint64_t { key, value, query };

/// Roughly N(0, 1): the sum of four uniforms.
inline float number_of(Kind kind, int layer, int head, int position, int dim) {
  const std::uint64_t bits =
      mix((static_cast<std::uint64_t>(position) << 32U) ^ (static_cast<std::uint64_t>(dim) << 20U) ^
          (static_cast<std::uint64_t>(head) << 12U) ^ (static_cast<std::uint64_t>(layer) << 4U) ^
          static_cast<std::uint64_t>(kind));
  float sum = 0.0F;
  for (unsigned part = 0; part < 4; ++part)
    sum += static_cast<float>(bits >> 16U * part & 0xFFFFU) / 65536.0F - 0.5F;
  return 1.7320508F * sum;
}

/// [positions, heads, dim].
inline std::vector<float> tensor(Kind kind, int layer, const std::vector<int>& positions, int heads,
                                 int dim) {
  std::vector<float> numbers;
  numbers.reserve(positions.size() * static_cast<std::size_t>(heads * dim));
  for (const int position : positions) {
    for (int head = 0; head < heads; ++head) {
      for (int at = 0; at < dim; ++at) {
        const float number = number_of(kind, layer, head, position, at);
        numbers.push_back(kind == Kind::query ? 3.0F * number : number);
      }
    }
  }
  return numbers;
}

/// A key of the model, made once: kernels outside of the cache read each of them many times.
inline const float* key_of(const Shape& shape, int layer, int head, int position) {
  static std::vector<std::vector<float>> layers;  // [layer][position, head, dim]
  if (layers.size() <= static_cast<std::size_t>(layer))
    layers.resize(static_cast<std::size_t>(layer) + 1);
  std::vector<float>& keys = layers[static_cast<std::size_t>(layer)];
  const auto width = static_cast<std::size_t>(shape.heads * shape.head_dim);
  while (keys.size() <= static_cast<std::size_t>(position) * width) {
    const std::vector<int> next{static_cast<int>(keys.size() / width)};
    const auto made = tensor(Kind::key, layer, next, shape.heads, shape.head_dim);
    keys.insert(keys.end(), made.begin(), made.end());
  }
  return keys.data() + static_cast<std::size_t>(position) * width + head * shape.head_dim;
}

}  // namespace kvast::test
