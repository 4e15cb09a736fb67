// SPDX-License-Identifier: Apache-2.0
// Attention of a whole cache beside the reference in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kvast/gpu/kv_cache.cuh"
#include "tests/simt/backend.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

/// A cache of one layer and a reference per sequence, fed the same tokens.
template <class Policy, class S>
class AttendTwins {
 public:
  using Format = typename gpu::DeviceFormats<S>::Waiting;
  using Cache = KVCache<Policy, OnGpu<S, TestDevice>>;

  AttendTwins(const Shape& shape, Policy policy, const gpu::CacheOptions& options, S storage = {})
      : shape_(shape), cache_(shape, policy, {storage}, pool_, options) {
    for (int sequence = 0; sequence < options.sequences; ++sequence)
      references_.emplace_back(shape.query_heads, shape.heads, shape.head_dim, shape.values());
  }

  /// Added to one of sixteen features of every key from now on.
  float key_offset = 0.0F;
  /// Where options have log_sum_exp: its largest error of the last pass, in |query| times the
  /// longest |key| times scale.
  double sum_error = 0.0;

  Cache& cache() { return cache_; }
  gpu::Pool<TestDevice>& pool() { return pool_; }

  /// The largest relative error of a row.
  double pass(const std::vector<int>& counts, const gpu::AttendOptions& options = {},
              const ReferenceRules& rules = {}) {
    const int rows = std::accumulate(counts.begin(), counts.end(), 0);
    const auto keys = stored(rows * shape_.heads * shape_.head_dim, key_offset);
    const auto values = stored(rows * shape_.heads * shape_.values(), 0.0F);
    const auto queries = on_device(random_.normals(
        static_cast<std::size_t>(rows * shape_.query_heads * shape_.head_dim), 2.0));
    DeviceVector<float> output(
        static_cast<std::size_t>(rows * shape_.query_heads * shape_.values()), NAN);
    auto pass = cache_.begin({.counts = counts});
    EXPECT_TRUE(pass) << pass.status().message();
    EXPECT_TRUE(pass->append(0, keys.data(), values.data()));
    const Status status = pass->attend(0, queries.data(), output.data(), options);
    EXPECT_TRUE(status) << status.message();
    EXPECT_TRUE(pass->commit());
    wait();
    double worst = 0.0;
    sum_error = 0.0;
    int row = 0;
    for (std::size_t sequence = 0; sequence < counts.size(); ++sequence) {
      const int at = static_cast<int>(sequence);
      const int length = cache_.length(at);
      std::vector<int> positions(static_cast<std::size_t>(counts[sequence]));
      std::iota(positions.begin(), positions.end(), length - counts[sequence]);
      references_[sequence].append(positions, keys.data() + row * shape_.heads * shape_.head_dim,
                                   values.data() + row * shape_.heads * shape_.values());
      for (const int position : positions) {
        for (int head = 0; head < shape_.query_heads; ++head) {
          const auto line = static_cast<std::ptrdiff_t>(row * shape_.query_heads + head);
          const auto sight = references_[sequence].attend(
              head, position, queries.data() + line * shape_.head_dim, rules);
          const double error = relative_error(output.data() + line * shape_.values(), sight.output);
          worst = std::max(worst, std::isnan(error) ? INFINITY : error);
          if (options.log_sum_exp == nullptr) continue;
          const double unit =
              norm(queries.data() + line * shape_.head_dim) *
              longest_key(references_[sequence].kept(head / (shape_.query_heads / shape_.heads)));
          sum_error =
              std::max(sum_error, std::abs(options.log_sum_exp[line] - sight.log_sum_exp) / unit);
        }
        ++row;
      }
      for (int head = 0; head < shape_.heads; ++head)
        references_[sequence].keep(head, *cache_.kept(at, 0, head));
      if constexpr (gpu::DeviceFormats<S>::codes) decode(at);
    }
    return worst;
  }

 private:
  /// Divided by the square root of sqrt(head_dim), as keys' are: their product has the scale.
  template <class Number>
  double norm(const Number* numbers) const {
    double sum = 0.0;
    for (int dim = 0; dim < shape_.head_dim; ++dim) sum += double{numbers[dim]} * numbers[dim];
    return std::sqrt(sum / std::sqrt(static_cast<double>(shape_.head_dim)));
  }
  double longest_key(const std::vector<ReferenceLayer::Token>& tokens) const {
    double longest = 0.0;
    for (const ReferenceLayer::Token& token : tokens)
      longest = std::max(longest, norm(token.key.data()));
    return longest;
  }
  /// The reference's tokens become what the cache says that they are: cache_test.cpp says that it
  /// is right.
  void decode(int sequence) {
    ReferenceLayer& reference = references_[static_cast<std::size_t>(sequence)];
    int rows = 0;
    for (int head = 0; head < shape_.heads; ++head)
      rows = std::max(rows, static_cast<int>(reference.kept(head).size()));
    DeviceVector<float> keys(static_cast<std::size_t>(rows * shape_.heads * shape_.head_dim));
    DeviceVector<float> values(static_cast<std::size_t>(rows * shape_.heads * shape_.values()));
    EXPECT_TRUE(cache_.export_dense(sequence, 0, rows, keys.data(), values.data()));
    wait();
    for (int head = 0; head < shape_.heads; ++head) {
      for (std::size_t row = 0; row < reference.kept(head).size(); ++row) {
        const auto line = static_cast<std::ptrdiff_t>(row) * shape_.heads + head;
        ReferenceLayer::Token& token = reference.kept(head)[row];
        const float* key = keys.data() + line * shape_.head_dim;
        const float* value = values.data() + line * shape_.values();
        token.key.assign(key, key + shape_.head_dim);
        token.value.assign(value, value + shape_.values());
      }
    }
  }
  DeviceVector<float> stored(int count, float offset) {
    DeviceVector<float> numbers = on_device(random_.normals(static_cast<std::size_t>(count)));
    for (std::size_t at = 5; at < numbers.size(); at += 16) numbers[at] += offset;
    for (float& number : numbers) number = Format::number(Format::element(number));
    return numbers;
  }

  Shape shape_;
  Random random_{17};
  gpu::Pool<TestDevice> pool_{{.stream = stream()}};
  Cache cache_;
  std::vector<ReferenceLayer> references_;
};

}  // namespace kvast::test
