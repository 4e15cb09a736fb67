// SPDX-License-Identifier: Apache-2.0
// A made-up model: keys, values and queries are functions of layer, head and position alone, so
// they are the same however tokens arrive.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kvast/core/shape.h"
#include "tests/laws/scrambled.h"
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

/// Keys of a head at positions 0 to `last`, shape.heads * shape.head_dim apart. Made once: kernels
/// outside of the cache read each of them many times.
inline const float* keys_until(const Shape& shape, int layer, int head, int last) {
  static std::vector<std::vector<float>> layers;  // [layer][position, head, dim]
  if (layers.size() <= static_cast<std::size_t>(layer))
    layers.resize(static_cast<std::size_t>(layer) + 1);
  std::vector<float>& keys = layers[static_cast<std::size_t>(layer)];
  const auto width = static_cast<std::size_t>(shape.heads * shape.head_dim);
  while (keys.size() <= static_cast<std::size_t>(last) * width) {
    const std::vector<int> next{static_cast<int>(keys.size() / width)};
    const auto made = tensor(Kind::key, layer, next, shape.heads, shape.head_dim);
    keys.insert(keys.end(), made.begin(), made.end());
  }
  return keys.data() + head * shape.head_dim;
}

/// Attention of one query at `position` over the tokens that lie in `slots` (a head's positions, or
/// -1): one weight per slot.
inline void softmax_weights(const Shape& shape, int layer, int head, int position,
                            const float* query, const std::vector<int>& slots, float* weights) {
  const float* keys = keys_until(shape, layer, head, position);
  const double scale = 1.0 / std::sqrt(shape.head_dim);
  double sum = 0.0;
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] < 0 || slots[slot] > position) continue;
    const float* key = keys + slots[slot] * shape.heads * shape.head_dim;
    double logit = 0.0;
    for (int dim = 0; dim < shape.head_dim; ++dim)
      logit += static_cast<double>(query[dim] * key[dim]);
    weights[slot] = std::exp(static_cast<float>(logit * scale));
    sum += static_cast<double>(weights[slot]);
  }
  for (std::size_t slot = 0; slot < slots.size(); ++slot)
    weights[slot] = static_cast<float>(static_cast<double>(weights[slot]) / sum);
}

/// Weights of few values, so that ties are common and must be decided by position. Junk has none:
/// which of it is there must not matter to policies that look at whole rows.
inline void coarse_weights(int query_head, int position, const std::vector<int>& slots,
                           float* weights) {
  for (std::size_t slot = 0; slot < slots.size(); ++slot) {
    if (slots[slot] < 0 || slots[slot] > position || junk_kind(slots[slot]) != 0) continue;
    const std::uint64_t bits =
        mix(static_cast<std::uint64_t>(position) * 1000003U +
            static_cast<std::uint64_t>(slots[slot]) * 31U + static_cast<std::uint64_t>(query_head));
    weights[slot] = static_cast<float>(bits % 8) / 256.0F;
  }
}

}  // namespace kvast::test
