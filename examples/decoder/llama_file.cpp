// SPDX-License-Identifier: Apache-2.0
// Reads a model file, and checks what it says.
#include "examples/decoder/llama_file.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace kvast::decoder {
namespace {

std::string extents_of(int rows, int columns) {
  return "[" + std::to_string(columns) + ", " + std::to_string(rows) + "]";
}

Matrix read_weights(const Gguf& file, const std::string& name, int rows, int columns) {
  const Matrix weights(file.tensor(name));
  if (weights.rows != rows || weights.columns != columns) {
    throw FileError("tensor '" + name + "' is " + extents_of(weights.rows, weights.columns) +
                    ", the metadata asks for " + extents_of(rows, columns));
  }
  return weights;
}

std::vector<float> read_vector(const Gguf& file, const std::string& name, int size) {
  const Matrix weights = read_weights(file, name, 1, size);
  std::vector<float> out(static_cast<std::size_t>(size));
  dequantize(weights, 0, 0, size, out.data());
  return out;
}

void refuse_unsupported(const Gguf& file) {
  const auto architecture = file.text("general.architecture");
  if (architecture != "llama") {
    throw FileError("the file's architecture is '" + std::string(architecture) +
                    "'; this decoder runs 'llama' only");
  }
  if (file.integer("llama.expert_count", 0, 1 << 20, 0) != 0) {
    throw FileError("the file is a mixture of experts, which this decoder does not run");
  }
  const auto scaling = file.text("llama.rope.scaling.type", "none");
  if (scaling != "none" || file.find("rope_freqs.weight") != nullptr) {
    throw FileError("the file asks for RoPE scaling, which this decoder does not do");
  }
  for (const auto& [name, tensor] : file.tensors()) {
    if (name.ends_with(".bias")) {
      throw FileError("the file has the bias '" + std::string(name) +
                      "', which this decoder does not apply");
    }
  }
}

LlamaConfig read_config(const Gguf& file) {
  constexpr int kMost = 1 << 20;
  LlamaConfig config;
  config.layers = file.integer("llama.block_count", 1, 1024);
  config.embedding = file.integer("llama.embedding_length", 1, kMost);
  config.feed_forward = file.integer("llama.feed_forward_length", 1, kMost);
  config.query_heads = file.integer("llama.attention.head_count", 1, 4096);
  config.heads =
      file.integer("llama.attention.head_count_kv", 1, config.query_heads, config.query_heads);
  config.context = file.integer("llama.context_length", 1, 1 << 30);
  config.epsilon = static_cast<float>(file.real("llama.attention.layer_norm_rms_epsilon"));
  if (config.query_heads % config.heads != 0) {
    throw FileError("the file has " + std::to_string(config.query_heads) +
                    " query heads, no multiple of its " + std::to_string(config.heads) + " heads");
  }
  if (!(config.epsilon >= 0.0F && config.epsilon < 1.0F)) {
    throw FileError("the file's norm epsilon lies outside 0 to 1");
  }
  config.head_dim =
      file.integer("llama.attention.key_length", 1, 4096, config.embedding / config.query_heads);
  const int value_dim = file.integer("llama.attention.value_length", 1, 4096, config.head_dim);
  const int width = file.integer("llama.rope.dimension_count", 1, 4096, config.head_dim);
  const double base = file.real("llama.rope.freq_base", 10000.0);
  if (config.head_dim < 1 || value_dim != config.head_dim) {
    throw FileError("the file's keys have " + std::to_string(config.head_dim) +
                    " features and its values " + std::to_string(value_dim) +
                    "; this decoder needs them equal");
  }
  if (width % 2 != 0 || width > config.head_dim || !(base > 0.0)) {
    throw FileError("the file's RoPE width " + std::to_string(width) +
                    " must be even and at most the head's " + std::to_string(config.head_dim) +
                    ", and its base positive");
  }
  config.rope = Rope::plain(width, base, Pairing::interleaved);
  config.vocabulary = static_cast<int>(file.tensor("token_embd.weight").extents[1]);
  return config;
}

}  // namespace

Shape LlamaConfig::shape() const {
  return {.layers = layers, .query_heads = query_heads, .heads = heads, .head_dim = head_dim};
}

LlamaWeights::LlamaWeights(const Gguf& file) {
  refuse_unsupported(file);
  config = read_config(file);
  const int features = config.embedding;
  embedding = read_weights(file, "token_embd.weight", config.vocabulary, features);
  output = file.find("output.weight") == nullptr
               ? embedding  // tied
               : read_weights(file, "output.weight", config.vocabulary, features);
  output_norm = read_vector(file, "output_norm.weight", features);
  for (int index = 0; index < config.layers; ++index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    const auto weights = [&](const char* name, int rows, int columns) {
      return read_weights(file, prefix + name + ".weight", rows, columns);
    };
    layers.push_back({
        .attention_norm = read_vector(file, prefix + "attn_norm.weight", features),
        .feed_forward_norm = read_vector(file, prefix + "ffn_norm.weight", features),
        .queries = weights("attn_q", config.query_features(), features),
        .keys = weights("attn_k", config.key_features(), features),
        .values = weights("attn_v", config.key_features(), features),
        .attended = weights("attn_output", features, config.query_features()),
        .gate = weights("ffn_gate", config.feed_forward, features),
        .up = weights("ffn_up", config.feed_forward, features),
        .down = weights("ffn_down", features, config.feed_forward),
    });
  }
}

void check_pass(const LlamaConfig& config, std::span<const int> tokens, std::span<const int> rows) {
  if (tokens.empty()) throw std::out_of_range("forward: a pass needs at least one token");
  for (const int token : tokens) {
    if (token < 0 || token >= config.vocabulary) {
      throw std::out_of_range("forward: token " + std::to_string(token) +
                              " lies outside the vocabulary of " +
                              std::to_string(config.vocabulary));
    }
  }
  for (const int row : rows) {
    if (row < 0 || row >= static_cast<int>(tokens.size())) {
      throw std::out_of_range("forward: logits of row " + std::to_string(row) + " of " +
                              std::to_string(tokens.size()));
    }
  }
}

std::span<const float> logits_row(std::span<const float> logits, int vocabulary, int rows,
                                  int index) {
  if (index < 0 || index >= rows) {
    throw std::out_of_range("logits: row " + std::to_string(index) + " of " + std::to_string(rows));
  }
  const auto width = static_cast<std::size_t>(vocabulary);
  return logits.subspan(static_cast<std::size_t>(index) * width, width);
}

int best_token(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace kvast::decoder
