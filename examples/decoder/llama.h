// SPDX-License-Identifier: Apache-2.0
// A Llama decoder around somebody else's cache: everything of the model except keys, values and
// attention.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "examples/decoder/gguf.h"
#include "examples/decoder/layers.h"
#include "examples/decoder/llama_file.h"
#include "examples/decoder/matmul.h"
#include "examples/decoder/panels.h"
#include "kvast/core/executor.h"
#include "kvast/core/status.h"

namespace kvast::decoder {

/// Seconds spent inside the cache since the last reset; what the rest of a pass takes is the
/// model's.
struct CacheTime {
  double append = 0;
  double attend = 0;
  double commit = 0;
};

/// One model, for one sequence at a time. The file's bytes must outlive it: weights are used where
/// they lie.
class Llama {
 public:
  /// Takes any file of the architecture `llama` with plain RoPE and dense layers. Throws FileError,
  /// naming what it does not support or what does not fit.
  explicit Llama(const Gguf& file, Executor executor = serial(),
                 Precision precision = Precision::fast);

  const LlamaConfig& config() const { return weights_.config; }
  /// A layer's key and value projections as floats, [heads * head_dim, embedding].
  std::vector<float> key_projection(int layer) const;
  std::vector<float> value_projection(int layer) const;
  void set_precision(Precision precision) { precision_ = precision; }

  /// Runs `tokens` (at least one) at positions first_position, first_position + 1, ... through the
  /// model and `cache`.
  ///   cache   begin(PassOptions) -> Status, append(layer, keys, values), attend(layer, queries,
  ///   output),
  ///           commit(layer); rows [n, heads, head_dim] of float. Where it says wants_unrotated(),
  ///           keys and queries arrive without rotation.
  ///   pass    handed to begin() with `tokens` filled in
  ///   rows    tokens of this pass, ascending, whose logits are wanted; logits() then has one row
  ///   for each
  /// Returns what begin() returned. Throws std::out_of_range for a token outside the vocabulary,
  /// before begin().
  template <class Cache, class PassOptions>
  Status forward(Cache& cache, std::span<const int> tokens, int first_position, PassOptions pass,
                 std::span<const int> rows);

  /// The same with the logits of the last token.
  template <class Cache, class PassOptions>
  Status forward(Cache& cache, std::span<const int> tokens, int first_position, PassOptions pass) {
    const int last = static_cast<int>(tokens.size()) - 1;
    return forward(cache, tokens, first_position, pass, {&last, 1});
  }

  /// [vocabulary], of the index-th of the rows asked for in the last forward(); valid until the
  /// next.
  std::span<const float> logits(int index = 0) const;

  /// The token with the highest logit; the lowest id where several share it.
  int best(int index = 0) const;

  const CacheTime& cache_time() const { return cache_time_; }
  void reset_cache_time() { cache_time_ = {}; }

 private:
  using Layer = LlamaWeights::Layer;

  void begin(std::span<const int> tokens, int first_position);
  void project(const Layer& layer, bool rotated);
  void conclude(const Layer& layer);
  void score(std::span<const int> rows);
  template <class Body>
  void for_panels(Body body) const {
    executor_.parallel_for(stream_.panels(), body);
  }
  template <class Call>
  static void timed(double& seconds, Call call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  LlamaWeights weights_;
  Executor executor_;
  Precision precision_;

  Rotation rotation_;
  Panels stream_;                // the residual stream, [tokens] x embedding
  Panels normed_;                // input of a product
  Panels mixed_;                 // queries, keys, values side by side
  Panels gates_;                 // gate and up side by side
  Panels active_;                // their product; before that, the attention's output
  Panels scored_;                // logits of a few tokens
  std::vector<float> embedded_;  // [tokens, embedding]
  std::vector<float> queries_, keys_, values_,
      attended_;  // [tokens, heads, head_dim], for the cache
  std::vector<float> logits_;
  int scored_rows_ = 0;
  MatmulScratch scratch_;
  CacheTime cache_time_;
};

template <class Cache, class PassOptions>
Status Llama::forward(Cache& cache, std::span<const int> tokens, int first_position,
                      PassOptions pass, std::span<const int> rows) {
  check_pass(config(), tokens, rows);
  pass.tokens = static_cast<int>(tokens.size());
  if (Status status = cache.begin(pass); !status) return status;
  bool rotated = true;
  if constexpr (requires { cache.wants_unrotated(); }) rotated = !cache.wants_unrotated();
  begin(tokens, first_position);
  for (int index = 0; index < config().layers; ++index) {
    const Layer& layer = weights_.layers[static_cast<std::size_t>(index)];
    project(layer, rotated);
    timed(cache_time_.append, [&] {
      cache.append(index, static_cast<const float*>(keys_.data()),
                   static_cast<const float*>(values_.data()));
    });
    timed(cache_time_.attend, [&] {
      cache.attend(index, static_cast<const float*>(queries_.data()), attended_.data());
    });
    timed(cache_time_.commit, [&] { cache.commit(index); });
    conclude(layer);
  }
  score(rows);
  return {};
}

}  // namespace kvast::decoder
