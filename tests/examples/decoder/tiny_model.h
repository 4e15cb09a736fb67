// SPDX-License-Identifier: Apache-2.0
// A seeded model of a few thousand weights, as a GGUF file and as doubles.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "examples/decoder/gguf.h"
#include "kvast/core/half.h"
#include "tests/examples/decoder/gguf_writer.h"

namespace kvast::decoder {

struct TinySizes {
  int layers = 2, embedding = 64, feed_forward = 96, query_heads = 4, heads = 2, head_dim = 16;
  int vocabulary = 50;
  bool tied = true;
  int announced_layers = 0, announced_feed_forward = 0;  ///< what the metadata says; 0: the truth
};

/// A random matrix in a stored type, with the numbers that its bytes mean, worked out apart from
/// the decoder.
struct StoredMatrix {
  std::string bytes;
  std::vector<double> numbers;  // [rows, columns]
};

inline StoredMatrix random_matrix(TensorType type, int rows, int columns, std::mt19937& random) {
  StoredMatrix out;
  std::uniform_real_distribution<float> number(-0.25F, 0.25F);
  std::uniform_int_distribution<int> byte(0, 255);
  const auto add_half = [&](float value) {
    const half stored = to_half(value);
    GgufWriter::number(out.bytes, stored.bits);
    return static_cast<double>(to_float(stored));
  };
  for (int at = 0; at < rows * columns;) {
    if (type == TensorType::f32) {
      const float value = number(random);
      GgufWriter::number(out.bytes, value);
      out.numbers.push_back(static_cast<double>(value));
      ++at;
      continue;
    }
    if (type == TensorType::f16) {
      out.numbers.push_back(add_half(number(random)));
      ++at;
      continue;
    }
    const bool wide = type == TensorType::q8_0;
    const double scale = add_half(number(random) / (wide ? 128.0F : 8.0F));
    const double minimum = type == TensorType::q4_1 ? add_half(number(random)) : 0.0;
    std::vector<int> codes(32);
    for (int index = 0; index < (wide ? 32 : 16); ++index) {
      const auto code = static_cast<std::uint8_t>(byte(random));
      GgufWriter::number(out.bytes, code);
      const auto place = static_cast<std::size_t>(index);
      if (wide) {
        codes[place] = static_cast<std::int8_t>(code);
      } else {
        const int shift = type == TensorType::q4_0 ? 8 : 0;
        codes[place] = (code & 15) - shift;
        codes[place + 16] = (code >> 4) - shift;
      }
    }
    for (const int code : codes) out.numbers.push_back(scale * code + minimum);
    at += 32;
  }
  return out;
}

/// The file, and every tensor by name as doubles.
struct TinyModel {
  TinySizes sizes;
  GgufWriter writer;
  std::map<std::string, std::vector<double>> tensors;

  explicit TinyModel(TensorType type, TinySizes wanted = {}, unsigned seed = 1) : sizes(wanted) {
    const auto whole = [this](const char* key, int value) {
      writer.integer(std::string("llama.") + key, static_cast<std::uint32_t>(value));
    };
    writer.text("general.architecture", "llama");
    whole("block_count", sizes.announced_layers != 0 ? sizes.announced_layers : sizes.layers);
    whole("context_length", 128);
    whole("embedding_length", sizes.embedding);
    whole("feed_forward_length",
          sizes.announced_feed_forward != 0 ? sizes.announced_feed_forward : sizes.feed_forward);
    whole("attention.head_count", sizes.query_heads);
    whole("attention.head_count_kv", sizes.heads);
    whole("attention.key_length", sizes.head_dim);
    whole("attention.value_length", sizes.head_dim);
    whole("rope.dimension_count", sizes.head_dim);
    writer.real("llama.rope.freq_base", 500.0F);
    writer.real("llama.attention.layer_norm_rms_epsilon", 1e-5F);

    std::mt19937 random(seed);
    const auto add = [&](const std::string& name, TensorType stored, int rows, int columns) {
      StoredMatrix matrix = random_matrix(stored, rows, columns, random);
      std::vector<std::uint64_t> extents{static_cast<std::uint64_t>(columns)};
      if (rows > 1) extents.push_back(static_cast<std::uint64_t>(rows));
      writer.tensor(name + ".weight", static_cast<std::uint32_t>(stored), extents, matrix.bytes);
      tensors[name] = std::move(matrix.numbers);
    };
    add("token_embd", type, sizes.vocabulary, sizes.embedding);
    add("output_norm", TensorType::f32, 1, sizes.embedding);
    if (!sizes.tied) add("output", type, sizes.vocabulary, sizes.embedding);
    for (int layer = 0; layer < sizes.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      add(prefix + "attn_norm", TensorType::f32, 1, sizes.embedding);
      add(prefix + "attn_q", type, sizes.query_heads * sizes.head_dim, sizes.embedding);
      add(prefix + "attn_k", type, sizes.heads * sizes.head_dim, sizes.embedding);
      add(prefix + "attn_v", type, sizes.heads * sizes.head_dim, sizes.embedding);
      add(prefix + "attn_output", type, sizes.embedding, sizes.query_heads * sizes.head_dim);
      add(prefix + "ffn_norm", TensorType::f32, 1, sizes.embedding);
      add(prefix + "ffn_gate", type, sizes.feed_forward, sizes.embedding);
      add(prefix + "ffn_up", type, sizes.feed_forward, sizes.embedding);
      add(prefix + "ffn_down", type, sizes.embedding, sizes.feed_forward);
    }
  }

  /// Logits [tokens][vocabulary] of the model in double, written from the equations, without cache.
  std::vector<std::vector<double>> logits(const std::vector<int>& tokens) const {
    using Rows = std::vector<std::vector<double>>;
    const auto width = static_cast<std::size_t>(sizes.embedding);
    Rows stream;
    for (const int token : tokens) {
      const auto from = tensors.at("token_embd").begin() + token * sizes.embedding;
      stream.emplace_back(from, from + sizes.embedding);
    }
    for (int layer = 0; layer < sizes.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      Rows queries, keys, values;
      for (std::size_t token = 0; token < stream.size(); ++token) {
        const auto input = norm(stream[token], prefix + "attn_norm");
        queries.push_back(rotate(product(prefix + "attn_q", input), token));
        keys.push_back(rotate(product(prefix + "attn_k", input), token));
        values.push_back(product(prefix + "attn_v", input));
      }
      for (std::size_t token = 0; token < stream.size(); ++token) {
        const auto mixed =
            product(prefix + "attn_output", attend(queries[token], keys, values, token));
        for (std::size_t dim = 0; dim < width; ++dim) stream[token][dim] += mixed[dim];
        const auto input = norm(stream[token], prefix + "ffn_norm");
        auto gate = product(prefix + "ffn_gate", input);
        const auto up = product(prefix + "ffn_up", input);
        for (std::size_t dim = 0; dim < gate.size(); ++dim) {
          gate[dim] *= up[dim] / (1.0 + std::exp(-gate[dim]));
        }
        const auto down = product(prefix + "ffn_down", gate);
        for (std::size_t dim = 0; dim < width; ++dim) stream[token][dim] += down[dim];
      }
    }
    Rows out;
    for (const auto& row : stream) {
      out.push_back(product(sizes.tied ? "token_embd" : "output", norm(row, "output_norm")));
    }
    return out;
  }

 private:
  std::vector<double> product(const std::string& name, const std::vector<double>& input) const {
    const std::vector<double>& matrix = tensors.at(name);
    std::vector<double> out(matrix.size() / input.size());
    for (std::size_t row = 0; row < out.size(); ++row) {
      for (std::size_t column = 0; column < input.size(); ++column) {
        out[row] += matrix[row * input.size() + column] * input[column];
      }
    }
    return out;
  }

  std::vector<double> norm(const std::vector<double>& input, const std::string& name) const {
    double squares = 0;
    for (const double number : input) squares += number * number;
    const double root = std::sqrt(squares / static_cast<double>(input.size()) + 1e-5);
    std::vector<double> out;
    for (std::size_t dim = 0; dim < input.size(); ++dim) {
      out.push_back(input[dim] / root * tensors.at(name)[dim]);
    }
    return out;
  }

  std::vector<double> rotate(std::vector<double> features, std::size_t position) const {
    const auto width = static_cast<std::size_t>(sizes.head_dim);
    for (std::size_t at = 0; at < features.size(); at += 2) {
      const double pair = static_cast<double>(at % width) / static_cast<double>(width);
      const double angle = static_cast<double>(position) * std::pow(500.0, -pair);
      const double first = features[at], second = features[at + 1];
      features[at] = first * std::cos(angle) - second * std::sin(angle);
      features[at + 1] = first * std::sin(angle) + second * std::cos(angle);
    }
    return features;
  }

  std::vector<double> attend(const std::vector<double>& query,
                             const std::vector<std::vector<double>>& keys,
                             const std::vector<std::vector<double>>& values,
                             std::size_t last) const {
    const auto width = static_cast<std::size_t>(sizes.head_dim);
    const auto group = static_cast<std::size_t>(sizes.query_heads / sizes.heads);
    std::vector<double> out(query.size());
    for (std::size_t head = 0; head < query.size() / width; ++head) {
      const std::size_t from = head / group * width;
      double total = 0;
      for (std::size_t token = 0; token <= last; ++token) {
        double score = 0;
        for (std::size_t dim = 0; dim < width; ++dim) {
          score += query[head * width + dim] * keys[token][from + dim];
        }
        const double weight = std::exp(score / std::sqrt(static_cast<double>(width)));
        total += weight;
        for (std::size_t dim = 0; dim < width; ++dim) {
          out[head * width + dim] += weight * values[token][from + dim];
        }
      }
      for (std::size_t dim = 0; dim < width; ++dim) out[head * width + dim] /= total;
    }
    return out;
  }
};

}  // namespace kvast::decoder
