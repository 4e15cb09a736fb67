// SPDX-License-Identifier: Apache-2.0
// What a low-rank cache wants to know of a model: second moments while a text runs through it, or
// directions of its weights.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>

#include "examples/decoder/llama.h"
#include "kvast/calibrate/moments.h"
#include "kvast/calibrate/progressive.h"
#include "kvast/core/pass_options.h"

namespace kvast::decoder {

/// A cache that takes keys and queries unrotated, and adds what passes through it to Moments.
template <class Cache>
class ObservedCache {
 public:
  ObservedCache(Cache& cache, Moments& moments) : cache_(cache), moments_(moments) {}

  Status begin(const PassOptions& pass) {
    tokens_ = pass.tokens;
    return cache_.begin(pass);
  }
  void append(int layer, const float* keys, const float* values) {
    moments_.add(layer, tokens_, keys, {}, values);
    cache_.append(layer, keys, values);
  }
  void attend(int layer, const float* queries, float* output) {
    cache_.attend(layer, queries, output);
  }
  void commit(int layer) { cache_.commit(layer); }
  bool wants_unrotated() const { return true; }

 private:
  Cache& cache_;
  Moments& moments_;
  int tokens_ = 0;
};

/// Runs `tokens` through the model, `window` at a time, each window a text of its own, and sums up
/// keys and values before rotation. `make_cache()` gives a pointer to an empty cache of
/// Positions::unrotated; `progress(tokens)` is told after each window. Ref: Eigen Attention,
/// arXiv:2408.05646, Section 4.1: windows of 2,048 tokens.
template <class MakeCache>
Moments observe_text(Llama& model, std::span<const int> tokens, int window, MakeCache&& make_cache,
                     const std::function<void(int)>& progress) {
  Moments moments(model.config().shape(), {.before_rope = true});
  for (std::size_t first = 0; first < tokens.size();) {
    const std::size_t count = std::min(static_cast<std::size_t>(window), tokens.size() - first);
    const auto cache = make_cache();
    ObservedCache observed(*cache, moments);
    PassOptions pass;
    pass.last_of_prompt = true;
    const Status status =
        model.forward(observed, tokens.subspan(first, count), 0, pass, std::span<const int>());
    if (!status) throw std::runtime_error(status.message());
    first += count;
    progress(static_cast<int>(first));
  }
  return moments;
}

/// Directions of the model's key and value projections, for LoRC.
WeightCalibration calibrate_weights(const Llama& model);

}  // namespace kvast::decoder
