// SPDX-License-Identifier: Apache-2.0
// The model's own part of a pass, and the checks of a file's sizes.
#include "examples/decoder/llama.h"

#include <algorithm>
#include <stdexcept>

namespace kvast::decoder {
namespace {

constexpr int kScoredTogether = 128;  // rows of logits in flight: 25 MB for a vocabulary of 49,152

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

Llama::Llama(const Gguf& file, Executor executor, Precision precision)
    : executor_(executor), precision_(precision) {
  refuse_unsupported(file);
  config_ = read_config(file);
  const int embedding = config_.embedding;
  const int query_features = config_.query_heads * config_.head_dim;
  const int key_features = config_.heads * config_.head_dim;
  embedding_ = read_weights(file, "token_embd.weight", config_.vocabulary, embedding);
  output_ = file.find("output.weight") == nullptr
                ? embedding_  // tied
                : read_weights(file, "output.weight", config_.vocabulary, embedding);
  output_norm_ = read_vector(file, "output_norm.weight", embedding);
  for (int index = 0; index < config_.layers; ++index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    const auto weights = [&](const char* name, int rows, int columns) {
      return read_weights(file, prefix + name + ".weight", rows, columns);
    };
    layers_.push_back({
        .attention_norm = read_vector(file, prefix + "attn_norm.weight", embedding),
        .feed_forward_norm = read_vector(file, prefix + "ffn_norm.weight", embedding),
        .queries = weights("attn_q", query_features, embedding),
        .keys = weights("attn_k", key_features, embedding),
        .values = weights("attn_v", key_features, embedding),
        .attended = weights("attn_output", embedding, query_features),
        .gate = weights("ffn_gate", config_.feed_forward, embedding),
        .up = weights("ffn_up", config_.feed_forward, embedding),
        .down = weights("ffn_down", embedding, config_.feed_forward),
    });
  }
}

namespace {

std::vector<float> whole(const Matrix& weights) {
  const auto columns = static_cast<std::size_t>(weights.columns);
  std::vector<float> numbers(static_cast<std::size_t>(weights.rows) * columns);
  for (int row = 0; row < weights.rows; ++row)
    dequantize(weights, row, 0, weights.columns,
               numbers.data() + static_cast<std::size_t>(row) * columns);
  return numbers;
}

}  // namespace

std::vector<float> Llama::key_projection(int layer) const {
  return whole(layers_.at(static_cast<std::size_t>(layer)).keys);
}

std::vector<float> Llama::value_projection(int layer) const {
  return whole(layers_.at(static_cast<std::size_t>(layer)).values);
}

std::span<const float> Llama::logits(int index) const {
  if (index < 0 || index >= scored_rows_) {
    throw std::out_of_range("logits: row " + std::to_string(index) + " of " +
                            std::to_string(scored_rows_));
  }
  const auto vocabulary = static_cast<std::size_t>(config_.vocabulary);
  return {logits_.data() + static_cast<std::size_t>(index) * vocabulary, vocabulary};
}

int Llama::best(int index) const {
  const auto row = logits(index);
  return static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
}

void Llama::check(std::span<const int> tokens, std::span<const int> rows) const {
  if (tokens.empty()) throw std::out_of_range("forward: a pass needs at least one token");
  for (const int token : tokens) {
    if (token < 0 || token >= config_.vocabulary) {
      throw std::out_of_range("forward: token " + std::to_string(token) +
                              " lies outside the vocabulary of " +
                              std::to_string(config_.vocabulary));
    }
  }
  for (const int row : rows) {
    if (row < 0 || row >= static_cast<int>(tokens.size())) {
      throw std::out_of_range("forward: logits of row " + std::to_string(row) + " of " +
                              std::to_string(tokens.size()));
    }
  }
}

void Llama::begin(std::span<const int> tokens, int first_position) {
  const int count = static_cast<int>(tokens.size());
  const int query_features = config_.query_heads * config_.head_dim;
  const int key_features = config_.heads * config_.head_dim;
  scored_rows_ = 0;
  stream_.resize(count, config_.embedding);
  normed_.resize(count, config_.embedding);
  mixed_.resize(count, query_features + 2 * key_features);
  gates_.resize(count, 2 * config_.feed_forward);
  queries_.resize(tokens.size() * static_cast<std::size_t>(query_features));
  attended_.resize(queries_.size());
  keys_.resize(tokens.size() * static_cast<std::size_t>(key_features));
  values_.resize(keys_.size());
  rotation_.prepare(config_.rope, first_position, count);

  const auto embedding = static_cast<std::size_t>(config_.embedding);
  embedded_.resize(tokens.size() * embedding);
  for_panels([&](int panel) {
    for (int lane = 0; lane < stream_.live(panel); ++lane) {
      const auto token = static_cast<std::size_t>(panel * stream_.lanes() + lane);
      dequantize(embedding_, tokens[token], 0, config_.embedding,
                 embedded_.data() + token * embedding);
    }
    pack(embedded_.data(), stream_, panel);
  });
}

void Llama::project(const Layer& layer, bool rotated) {
  const int query_features = config_.query_heads * config_.head_dim;
  const int key_features = config_.heads * config_.head_dim;
  for_panels([&](int panel) {
    normalize(stream_, panel, layer.attention_norm.data(), config_.epsilon, normed_);
  });
  multiply(executor_, normed_,
           {{layer.queries, mixed_, 0},
            {layer.keys, mixed_, query_features},
            {layer.values, mixed_, query_features + key_features}},
           precision_, scratch_);
  for_panels([&](int panel) {
    if (rotated) {
      rotation_.apply(mixed_, panel, 0, config_.query_heads + config_.heads, config_.head_dim);
    }
    unpack(mixed_, panel, 0, query_features, queries_.data());
    unpack(mixed_, panel, query_features, key_features, keys_.data());
    unpack(mixed_, panel, query_features + key_features, key_features, values_.data());
  });
}

void Llama::conclude(const Layer& layer) {
  active_.resize(stream_.tokens(), config_.query_heads * config_.head_dim);
  for_panels([&](int panel) { pack(attended_.data(), active_, panel); });
  multiply(executor_, active_, {{layer.attended, stream_, 0, true}}, precision_, scratch_);
  for_panels([&](int panel) {
    normalize(stream_, panel, layer.feed_forward_norm.data(), config_.epsilon, normed_);
  });
  multiply(executor_, normed_, {{layer.gate, gates_, 0}, {layer.up, gates_, config_.feed_forward}},
           precision_, scratch_);
  active_.resize(stream_.tokens(), config_.feed_forward);
  for_panels([&](int panel) { activate(gates_, panel, active_); });
  multiply(executor_, active_, {{layer.down, stream_, 0, true}}, precision_, scratch_);
}

void Llama::score(std::span<const int> rows) {
  const auto vocabulary = static_cast<std::size_t>(config_.vocabulary);
  if (logits_.size() < rows.size() * vocabulary) logits_.resize(rows.size() * vocabulary);
  Panels& input = normed_;
  for (std::size_t first = 0; first < rows.size(); first += kScoredTogether) {
    const auto chosen =
        rows.subspan(first, std::min<std::size_t>(kScoredTogether, rows.size() - first));
    active_.resize(static_cast<int>(chosen.size()), config_.embedding);
    input.resize(active_.tokens(), config_.embedding);
    scored_.resize(active_.tokens(), config_.vocabulary);
    for (int panel = 0; panel < active_.panels(); ++panel) {
      for (int lane = 0; lane < active_.lanes(); ++lane) {
        const bool live = lane < active_.live(panel);
        const int row = live ? chosen[static_cast<std::size_t>(panel * active_.lanes() + lane)] : 0;
        const float* from = stream_.at(row / stream_.lanes(), 0) + row % stream_.lanes();
        float* to = active_.at(panel, 0) + lane;
        for (int feature = 0; feature < config_.embedding; ++feature) {
          to[feature * active_.lanes()] = live ? from[feature * stream_.lanes()] : 0.0F;
        }
      }
      normalize(active_, panel, output_norm_.data(), config_.epsilon, input);
    }
    multiply(executor_, input, {{output_, scored_, 0}}, precision_, scratch_);
    executor_.parallel_for(scored_.panels(), [&](int panel) {
      unpack(scored_, panel, 0, config_.vocabulary, logits_.data() + first * vocabulary);
    });
  }
  scored_rows_ = static_cast<int>(rows.size());
}

}  // namespace kvast::decoder
