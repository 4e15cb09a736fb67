// SPDX-License-Identifier: Apache-2.0
// A cache filled with random tokens, and the check that it attends rightly before anybody times it.
#pragma once

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "bench/ops/stream.h"
#include "kvast/kvast.h"
#include "tests/support/reference.h"

namespace kvast::bench {

struct Sizes {
  int query_heads = 9;
  int heads = 3;
  int head_dim = 64;
  int tokens = 4096;
  int layers = 1;
};

/// As many layers as make a cache of about 256 MiB at f16, so that a step reads from memory and not
/// from caches; at most 64.
inline int layers_for(const Sizes& sizes) {
  const double layer = 4.0 * sizes.heads * sizes.head_dim * sizes.tokens;
  return std::clamp(static_cast<int>((256 << 20) / layer), 1, 64);
}

inline std::vector<float> random_numbers(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(generator);
  return numbers;
}

template <class Policy, class Storage>
class FilledCache {
 public:
  FilledCache(const Sizes& sizes, Policy policy, Storage storage)
      : sizes_(sizes),
        cache_(Shape{.layers = sizes.layers,
                     .query_heads = sizes.query_heads,
                     .heads = sizes.heads,
                     .head_dim = sizes.head_dim},
               policy, storage, pool_, options()) {
    keys_ = random_numbers(row() * static_cast<std::size_t>(sizes.tokens), 1);
    values_ = random_numbers(keys_.size(), 2);
    queries_ = random_numbers(static_cast<std::size_t>(sizes.query_heads * sizes.head_dim), 3);
    outputs_.resize(queries_.size());
    auto pass = cache_.begin({.tokens = sizes.tokens, .last_of_prompt = true});
    const std::vector<float> weights(static_cast<std::size_t>(2 * sizes.tokens + sizes.query_heads),
                                     0.0F);
    for (int layer = 0; layer < sizes.layers; ++layer) {
      pass->append(layer, keys_.data(), values_.data());
      // states start empty: filling the cache by attention would take minutes
      if constexpr (Policy::needs.attention) pass->observe(layer, Weights{weights.data(), 1, 1});
      pass->commit(layer);
    }
  }

  KVCache<Policy, Storage>& cache() { return cache_; }
  const std::vector<float>& keys() const { return keys_; }
  const std::vector<float>& values() const { return values_; }

  /// Seconds that one decode step spent in a verb, summed over layers.
  struct StepTime {
    double attend = 0;
    double commit = 0;
  };
  StepTime step() {
    StepTime time;
    auto pass = cache_.begin({});
    for (int layer = 0; layer < sizes_.layers; ++layer) {
      pass->append(layer, keys_.data(), values_.data());
      time.attend += seconds_of([&] { pass->attend(layer, queries_.data(), outputs_.data()); });
      time.commit += seconds_of([&] { pass->commit(layer); });
    }
    return time;
  }

  /// Payload that attention of one step reads, over all layers.
  double bytes_read() const {
    double blocks = 0;
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      for (int head = 0; head < sizes_.heads; ++head) blocks += cache_.tokens(layer, head);
    }
    return blocks * payload_per_token_;
  }
  void set_payload_per_token(double bytes) { payload_per_token_ = bytes; }

  /// Relative L2 error of one decode step of layer 0 against attention in double over what the
  /// cache exports.
  double error() {
    const auto dim = static_cast<std::size_t>(sizes_.head_dim);
    auto pass = cache_.begin({});
    pass->append(0, keys_.data(), values_.data());
    pass->attend(0, queries_.data(), outputs_.data());
    const int tokens = cache_.tokens(0, 0);
    std::vector<float> keys(row() * static_cast<std::size_t>(tokens));
    std::vector<float> values(keys.size());
    cache_.export_dense(0, keys.data(), values.data());
    std::vector<int> positions;
    for (int position = 0; position < tokens; ++position) positions.push_back(position);
    test::ReferenceLayer reference(sizes_.query_heads, sizes_.heads, sizes_.head_dim,
                                   sizes_.head_dim);
    reference.append(positions, keys.data(), values.data());
    double wrong = 0;
    double all = 0;
    for (int head = 0; head < sizes_.query_heads; ++head) {
      const std::size_t first = static_cast<std::size_t>(head) * dim;
      const auto sight = reference.attend(head, tokens, queries_.data() + first);
      for (std::size_t at = 0; at < dim; ++at) {
        wrong += std::pow(static_cast<double>(outputs_[first + at]) - sight.output[at], 2);
        all += sight.output[at] * sight.output[at];
      }
    }
    return std::sqrt(wrong / all);
  }

 private:
  static CacheOptions options() {
    CacheOptions options;
    options.executor = openmp(2);
    return options;
  }
  std::size_t row() const { return static_cast<std::size_t>(sizes_.heads * sizes_.head_dim); }

  Sizes sizes_;
  BlockPool pool_;
  KVCache<Policy, Storage> cache_;
  std::vector<float> keys_, values_, queries_, outputs_;
  double payload_per_token_ = 0;
};

}  // namespace kvast::bench
