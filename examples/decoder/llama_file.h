// SPDX-License-Identifier: Apache-2.0
// What a model file says: the sizes of a Llama model, and where its weights lie.
#pragma once

#include <span>
#include <vector>

#include "examples/decoder/gguf.h"
#include "examples/decoder/weights.h"
#include "kvast/core/rope.h"
#include "kvast/core/shape.h"

namespace kvast::decoder {

/// The sizes of a model, from its metadata.
struct LlamaConfig {
  int layers = 0;
  int embedding = 0;
  int feed_forward = 0;
  int query_heads = 0;
  int heads = 0;
  int head_dim = 0;
  int context = 0;  ///< tokens the model was trained for
  int vocabulary = 0;
  float epsilon = 0;
  Rope rope;

  Shape shape() const;
  int query_features() const { return query_heads * head_dim; }
  int key_features() const { return heads * head_dim; }
};

/// The weights of a model, where they lie in the file, whose bytes must outlive them.
struct LlamaWeights {
  struct Layer {
    std::vector<float> attention_norm, feed_forward_norm;  // [embedding]
    Matrix queries, keys, values, attended, gate, up, down;
  };

  /// Takes any file of the architecture `llama` with plain RoPE and dense layers. Throws FileError,
  /// naming what it does not support or what does not fit.
  explicit LlamaWeights(const Gguf& file);

  LlamaConfig config;
  Matrix embedding, output;        // [vocabulary, embedding]
  std::vector<float> output_norm;  // [embedding]
  std::vector<Layer> layers;
};

/// Throws std::out_of_range for a pass without tokens, a token outside the vocabulary, or logits of
/// a row that it does not have.
void check_pass(const LlamaConfig& config, std::span<const int> tokens, std::span<const int> rows);

/// The index-th row of `logits` [rows, vocabulary]. Throws std::out_of_range where there is none.
std::span<const float> logits_row(std::span<const float> logits, int vocabulary, int rows,
                                  int index);

/// The token with the highest of one row of logits; the lowest id where several share it.
int best_token(std::span<const float> logits);

}  // namespace kvast::decoder
