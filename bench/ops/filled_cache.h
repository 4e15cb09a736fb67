// SPDX-License-Identifier: Apache-2.0
// A cache filled with random tokens and random policy states, and the check that it attends rightly
// before anybody times it.
#pragma once

#include <algorithm>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

#include "bench/ops/stream.h"
#include "kvast/kvast.h"
#include "tests/support/reference.h"

namespace kvast::bench {

struct Sizes {
  int query_heads = 9;
  int heads = 3;
  int head_dim = 64;
  int tokens = 4096;  ///< of the prompt
  int layers = 1;
};

/// The relative error that `error()` may have: the reference reads the same stored numbers, but
/// what meets codes is rounded first, to one byte where they have at most 4 bits.
template <class Storage>
double allowed_error(const Storage& storage) {
  double allowed = 1e-4;
  const StoragePlan plan = storage.template plan<Simd>(0);
  for (const Codec* codec : {plan.coded_keys, plan.coded_values}) {
    if (codec != nullptr && !codec->dense)
      allowed = std::max(allowed, codec == &kCodec<Int<8>, Simd> ? 1e-3 : 3e-2);
  }
  return allowed;
}

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

/// The policy, but only the newest queries of a prompt are shown to it: all of a long one's
/// attention would take minutes. What a decode step does stays the same.
template <class Policy>
struct NewestQueries : Policy {
  int window_rows() const { return 64; }
};

template <class Policy, class Storage>
class FilledCache {
  static constexpr bool kSeesAll = Policy::needs.attention && !requires(const Policy& policy) {
    policy.window_rows();
  };
  static constexpr int kQueries = 64;  ///< different ones

 public:
  using Shown = std::conditional_t<kSeesAll, NewestQueries<Policy>, Policy>;

  FilledCache(const Sizes& sizes, Policy policy, Storage storage)
      : sizes_(sizes),
        cache_(Shape{.layers = sizes.layers,
                     .query_heads = sizes.query_heads,
                     .heads = sizes.heads,
                     .head_dim = sizes.head_dim},
               Shown{policy}, storage, pool_, options(sizes)) {
    keys_ = random_numbers(row() * static_cast<std::size_t>(sizes.tokens), 1);
    values_ = random_numbers(keys_.size(), 2);
    queries_ = random_numbers(query_row() * kQueries, 3);
    outputs_.resize(queries_.size());
    if constexpr (Policy::needs.query_moments) {
      // only attend sees queries, so most of the tokens arrive between two short turns
      arrive({.tokens = 1, .last_of_prompt = true}, true);
      arrive({.tokens = sizes.tokens - 1 - kQueries}, false);
      arrive({.tokens = kQueries, .last_of_prompt = true}, true);
    } else {
      arrive({.tokens = sizes.tokens, .last_of_prompt = true}, false);
    }
  }

  KVCache<Shown, Storage>& cache() { return cache_; }
  const std::vector<float>& keys() const { return keys_; }
  const std::vector<float>& values() const { return values_; }
  const std::vector<float>& queries() const { return queries_; }
  /// Of the layer that attended last.
  const std::vector<float>& outputs() const { return outputs_; }
  /// Seconds that the commit of one layer took at the prompt's end.
  double prompt_commit() const { return median(commits_); }

  /// Seconds that one decode step spent in a verb, summed over layers.
  struct StepTime {
    double attend = 0;
    double commit = 0;
  };
  /// Without commits the pass is dropped, and the cache stays as it is.
  StepTime step(bool commits = true) {
    StepTime time;
    const std::size_t token = static_cast<std::size_t>(steps_ % sizes_.tokens) * row();
    const float* queries =
        queries_.data() + query_row() * static_cast<std::size_t>(steps_ % kQueries);
    ++steps_;
    auto pass = cache_.begin({});
    for (int layer = 0; layer < sizes_.layers; ++layer) {
      pass->append(layer, keys_.data() + token, values_.data() + token);
      time.attend += seconds_of([&] { pass->attend(layer, queries, outputs_.data()); });
      if (commits) time.commit += seconds_of([&] { pass->commit(layer); });
    }
    return time;
  }

  /// Tokens kept in all heads of all layers.
  double tokens() const {
    double count = 0;
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      for (int head = 0; head < sizes_.heads; ++head) count += cache_.tokens(layer, head);
    }
    return count;
  }
  /// Payload that attention of one step reads, over all layers.
  double bytes_read() const { return tokens() * payload_per_token_; }
  void set_payload_per_token(double bytes) { payload_per_token_ = bytes; }

  /// Relative L2 error of one decode step of layer 0 against attention in double over what the
  /// cache exports.
  double error() {
    const auto dim = static_cast<std::size_t>(sizes_.head_dim);
    auto pass = cache_.begin({});
    pass->append(0, keys_.data(), values_.data());
    pass->attend(0, queries_.data(), outputs_.data());
    int most = 0;
    for (int head = 0; head < sizes_.heads; ++head) most = std::max(most, cache_.tokens(0, head));
    std::vector<float> keys(row() * static_cast<std::size_t>(most));
    std::vector<float> values(keys.size());
    cache_.export_dense(0, keys.data(), values.data());
    test::ReferenceLayer reference(sizes_.query_heads, sizes_.heads, sizes_.head_dim,
                                   sizes_.head_dim);
    for (int head = 0; head < sizes_.heads; ++head) {
      std::size_t at = static_cast<std::size_t>(head) * dim;
      for (const int position : cache_.kept(0, head)) {
        const float* key = keys.data() + at;
        const float* value = values.data() + at;
        reference.kept(head).push_back({position, {key, key + dim}, {value, value + dim}});
        at += row();
      }
    }
    std::vector<double> wanted;
    for (int head = 0; head < sizes_.query_heads; ++head) {
      const float* query = queries_.data() + static_cast<std::size_t>(head) * dim;
      const auto sight = reference.attend(head, cache_.length(), query);
      wanted.insert(wanted.end(), sight.output.begin(), sight.output.end());
    }
    return test::relative_error(outputs_.data(), wanted);
  }

 private:
  static CacheOptions options(const Sizes& sizes) {
    CacheOptions options;
    options.executor = openmp(kThreads);
    if (Policy::needs.query_moments)
      options.rope = Rope::plain(sizes.head_dim, 1e4, Pairing::halves);
    return options;
  }
  std::size_t row() const { return static_cast<std::size_t>(sizes_.heads * sizes_.head_dim); }
  std::size_t query_row() const {
    return static_cast<std::size_t>(sizes_.query_heads * sizes_.head_dim);
  }

  /// A pass of the prompt, committed. A policy that is not shown attention by attend is shown
  /// weights around a uniform share, which differ for every token.
  void arrive(const PassOptions& options, bool attends) {
    std::vector<float> weights =
        random_numbers(static_cast<std::size_t>(2 * options.tokens + sizes_.query_heads), 4);
    for (float& weight : weights) weight *= weight / static_cast<float>(options.tokens);
    const std::size_t first = static_cast<std::size_t>(cache_.length()) * row();
    auto pass = cache_.begin(options);
    commits_.clear();
    for (int layer = 0; layer < sizes_.layers; ++layer) {
      pass->append(layer, keys_.data() + first, values_.data() + first);
      if (attends) {
        pass->attend(layer, queries_.data(), outputs_.data());
      } else if constexpr (Policy::needs.attention) {
        pass->observe(layer, Weights{weights.data(), 1, 1});
      }
      commits_.push_back(seconds_of([&] { pass->commit(layer); }));
    }
  }

  Sizes sizes_;
  BlockPool pool_;
  KVCache<Shown, Storage> cache_;
  std::vector<float> keys_, values_, queries_, outputs_;
  std::vector<double> commits_;
  int steps_ = 0;
  double payload_per_token_ = 0;
};

}  // namespace kvast::bench
