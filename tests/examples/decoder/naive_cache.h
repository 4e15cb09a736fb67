// SPDX-License-Identifier: Apache-2.0
// The test double for the library's cache: keeps everything in plain floats and attends in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <stdexcept>
#include <vector>

#include "kvast/core/shape.h"
#include "kvast/core/status.h"

namespace kvast::decoder {

/// What the double wants to know of a pass; the decoder fills `tokens` in.
struct NaivePass {
  int tokens = 1;
};

/// Full causal attention over everything appended, in the calls that the decoder makes, and in
/// their order only.
class NaiveCache {
 public:
  /// Heads of a multiple of 8 features.
  explicit NaiveCache(const Shape& shape)
      : shape_(shape),
        keys_(static_cast<std::size_t>(shape.layers)),
        values_(static_cast<std::size_t>(shape.layers)) {}

  Status begin(const NaivePass& pass) {
    length_ += new_tokens_;
    new_tokens_ = pass.tokens;
    next_layer_ = 0;
    return {};
  }

  void append(int layer, const float* keys, const float* values) {
    expect(layer == next_layer_, "layers must come in order");
    const auto count = static_cast<std::size_t>(new_tokens_ * shape_.heads * shape_.head_dim);
    auto& stored_keys = keys_[static_cast<std::size_t>(layer)];
    auto& stored_values = values_[static_cast<std::size_t>(layer)];
    stored_keys.insert(stored_keys.end(), keys, keys + count);
    stored_values.insert(stored_values.end(), values, values + count);
  }

  void attend(int layer, const float* queries, float* output) {
    expect(keys_[static_cast<std::size_t>(layer)].size() ==
               static_cast<std::size_t>((length_ + new_tokens_) * shape_.heads * shape_.head_dim),
           "append must come before attend");
    const int rows = new_tokens_ * shape_.query_heads;
#pragma omp parallel for schedule(dynamic, 16)
    for (int row = 0; row < rows; ++row) {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row) * shape_.head_dim;
      attend_row(layer, row / shape_.query_heads, row % shape_.query_heads, queries + at,
                 output + at);
    }
  }

  void commit(int layer) {
    expect(layer == next_layer_, "commit must follow the layer's append");
    ++next_layer_;
  }

  int length() const { return length_ + new_tokens_; }
  const std::vector<float>& keys(int layer) const { return keys_[static_cast<std::size_t>(layer)]; }

 private:
  static void expect(bool held, const char* message) {
    if (!held) throw std::logic_error(message);
  }

  void attend_row(int layer, int token, int query_head, const float* query, float* output) const {
    const int dim = shape_.head_dim;
    const int head = query_head / shape_.group();
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(shape_.heads) * dim;
    const float* keys = keys_[static_cast<std::size_t>(layer)].data() + head * dim;
    const float* values = values_[static_cast<std::size_t>(layer)].data() + head * dim;
    const int visible = length_ + token + 1;
    std::vector<double> weights(static_cast<std::size_t>(visible));
    double most = -1e300;
    for (int other = 0; other < visible; ++other) {
      double parts[8] = {};  // independent sums: the compiler makes vectors of them
      const float* key = keys + other * stride;
      for (int feature = 0; feature < dim; feature += 8) {
        for (int part = 0; part < 8; ++part) {
          parts[part] +=
              static_cast<double>(query[feature + part]) * static_cast<double>(key[feature + part]);
        }
      }
      const double score = std::accumulate(parts, parts + 8, 0.0);
      weights[static_cast<std::size_t>(other)] = score / std::sqrt(static_cast<double>(dim));
      most = std::max(most, weights[static_cast<std::size_t>(other)]);
    }
    double total = 0;
    std::vector<double> sums(static_cast<std::size_t>(dim));
    for (int other = 0; other < visible; ++other) {
      const double weight = std::exp(weights[static_cast<std::size_t>(other)] - most);
      total += weight;
      for (int feature = 0; feature < dim; ++feature) {
        sums[static_cast<std::size_t>(feature)] +=
            weight * static_cast<double>(values[other * stride + feature]);
      }
    }
    for (int feature = 0; feature < dim; ++feature) {
      output[feature] = static_cast<float>(sums[static_cast<std::size_t>(feature)] / total);
    }
  }

  Shape shape_;
  std::vector<std::vector<float>> keys_, values_;  // per layer [tokens, heads, head_dim]
  int length_ = 0;
  int new_tokens_ = 0;
  int next_layer_ = 0;
};

/// Logits of every token, by a model around such a cache, in passes of the given sizes.
template <class Model>
std::vector<float> run_passes(Model& model, const std::vector<int>& tokens,
                              const std::vector<int>& passes) {
  NaiveCache cache(model.config().shape());
  std::vector<float> out;
  std::size_t first = 0;
  for (const int size : passes) {
    std::vector<int> rows;
    for (int row = 0; row < size; ++row) rows.push_back(row);
    const auto part = std::span<const int>(tokens).subspan(first, static_cast<std::size_t>(size));
    EXPECT_TRUE(model.forward(cache, part, static_cast<int>(first), NaivePass{}, rows));
    for (const int row : rows) {
      const auto logits = model.logits(row);
      out.insert(out.end(), logits.begin(), logits.end());
    }
    first += static_cast<std::size_t>(size);
  }
  return out;
}

}  // namespace kvast::decoder
