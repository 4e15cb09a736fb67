// SPDX-License-Identifier: Apache-2.0
// Keys, values and queries of a real model, as they would reach a cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <vector>

#include "examples/decoder/llama.h"
#include "kvast/kvast.h"
#include "tests/simt/policy_twins.h"

namespace kvast::test {

struct RecordedLayer {
  int tokens = 0;
  std::vector<float> keys, values, queries;  ///< [tokens, heads, dim]
  std::vector<float> weights;                ///< [query heads, tokens, tokens]
};

/// Some layers of a model that reads a text: stands where a cache would, and remembers what comes.
class Recorder {
 public:
  using Layer = RecordedLayer;

  Recorder(decoder::Llama& model, std::span<const int> text, std::vector<int> layers)
      : shape_(model.config().shape()),
        wanted_(std::move(layers)),
        layers_(wanted_.size()),
        cache_(shape_, {}, {}, pool_) {
    const Status status = model.forward(*this, text, 0, PassOptions{.last_of_prompt = true});
    EXPECT_TRUE(status) << status.message();
    for (Layer& layer : layers_) weigh(layer, static_cast<int>(text.size()));
  }

  const std::vector<Layer>& layers() const { return layers_; }

  // what the decoder asks of a cache
  Status begin(const PassOptions& options) {
    count_ = options.tokens;
    auto begun = cache_.begin(options);
    if (!begun) return begun.status();
    pass_.emplace(std::move(*begun));
    return {};
  }
  void append(int layer, const float* keys, const float* values) {
    pass_->append(layer, keys, values);
    if (Layer* one = find(layer)) {
      one->keys.assign(keys, keys + count_ * shape_.heads * shape_.head_dim);
      one->values.assign(values, values + count_ * shape_.heads * shape_.values());
    }
  }
  void attend(int layer, const float* queries, float* output) {
    pass_->attend(layer, queries, output);
    if (Layer* one = find(layer))
      one->queries.assign(queries, queries + count_ * shape_.query_heads * shape_.head_dim);
  }
  void commit(int layer) { pass_->commit(layer); }

 private:
  Layer* find(int layer) {
    const auto at = std::find(wanted_.begin(), wanted_.end(), layer);
    return at == wanted_.end() ? nullptr : &layers_[static_cast<std::size_t>(at - wanted_.begin())];
  }
  /// The softmax of each query, of all tokens up to its own.
  void weigh(Layer& layer, int tokens) const {
    layer.tokens = tokens;
    const auto vector = [this](const std::vector<float>& all, int token, int head, int heads) {
      return all.data() + (std::ptrdiff_t{token} * heads + head) * shape_.head_dim;
    };
    layer.weights.assign(
        static_cast<std::size_t>(shape_.query_heads) * static_cast<std::size_t>(tokens * tokens),
        0.0F);
    std::vector<double> parts(static_cast<std::size_t>(tokens));
    for (int head = 0; head < shape_.query_heads; ++head) {
      for (int step = 0; step < tokens; ++step) {
        const float* query = vector(layer.queries, step, head, shape_.query_heads);
        double total = 0;
        for (int token = 0; token <= step; ++token) {
          const float* key = vector(layer.keys, token, head / shape_.group(), shape_.heads);
          double logit = 0;
          for (int dim = 0; dim < shape_.head_dim; ++dim)
            logit += static_cast<double>(query[dim]) * static_cast<double>(key[dim]);
          const double part = std::exp(logit / std::sqrt(shape_.head_dim));
          parts[static_cast<std::size_t>(token)] = part;
          total += part;
        }
        float* line = layer.weights.data() + (std::ptrdiff_t{head} * tokens + step) * tokens;
        for (int token = 0; token <= step; ++token)
          line[token] = static_cast<float>(parts[static_cast<std::size_t>(token)] / total);
      }
    }
  }

  Shape shape_;
  std::vector<int> wanted_;
  std::vector<Layer> layers_;
  BlockPool pool_;
  KVCache<Full, Dense<float>> cache_;
  std::optional<KVCache<Full, Dense<float>>::Pass> pass_;
  int count_ = 0;
};

/// What sequences bring, each from a text of its own.
class RecordedNumbers : public TwinNumbers {
 public:
  void add(const Recorder& recorder) { sequences_.push_back(recorder.layers()); }

  std::vector<float> rows(Kind kind, int sequence, int layer, int first, int count,
                          int width) override {
    const RecordedLayer& one = of(sequence, layer);
    const std::vector<float>& all = kind == Kind::keys     ? one.keys
                                    : kind == Kind::values ? one.values
                                                           : one.queries;
    const auto begin = all.begin() + std::ptrdiff_t{first} * width;
    return {begin, begin + std::ptrdiff_t{count} * width};
  }
  float weight(int sequence, int layer, int query_head, int step, int position) const override {
    const RecordedLayer& one = of(sequence, layer);
    const std::ptrdiff_t line = std::ptrdiff_t{query_head} * one.tokens + step;
    return one.weights[static_cast<std::size_t>(line * one.tokens + position)];
  }

 private:
  const RecordedLayer& of(int sequence, int layer) const {
    return sequences_.at(static_cast<std::size_t>(sequence)).at(static_cast<std::size_t>(layer));
  }

  std::vector<std::vector<RecordedLayer>> sequences_;
};

}  // namespace kvast::test
