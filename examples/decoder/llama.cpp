// SPDX-License-Identifier: Apache-2.0
// The model's own part of a pass.
#include "examples/decoder/llama.h"

#include <algorithm>

namespace kvast::decoder {
namespace {

constexpr int kScoredTogether = 128;  // rows of logits in flight: 25 MB for a vocabulary of 49,152

}  // namespace

Llama::Llama(const Gguf& file, Executor executor, Precision precision)
    : weights_(file), executor_(executor), precision_(precision) {}

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
  return whole(weights_.layers.at(static_cast<std::size_t>(layer)).keys);
}

std::vector<float> Llama::value_projection(int layer) const {
  return whole(weights_.layers.at(static_cast<std::size_t>(layer)).values);
}

std::span<const float> Llama::logits(int index) const {
  return logits_row(logits_, config().vocabulary, scored_rows_, index);
}

int Llama::best(int index) const { return best_token(logits(index)); }

void Llama::begin(std::span<const int> tokens, int first_position) {
  const int count = static_cast<int>(tokens.size());
  const int query_features = config().query_features();
  const int key_features = config().key_features();
  scored_rows_ = 0;
  stream_.resize(count, config().embedding);
  normed_.resize(count, config().embedding);
  mixed_.resize(count, query_features + 2 * key_features);
  gates_.resize(count, 2 * config().feed_forward);
  queries_.resize(tokens.size() * static_cast<std::size_t>(query_features));
  attended_.resize(queries_.size());
  keys_.resize(tokens.size() * static_cast<std::size_t>(key_features));
  values_.resize(keys_.size());
  rotation_.prepare(config().rope, first_position, count);

  const auto embedding = static_cast<std::size_t>(config().embedding);
  embedded_.resize(tokens.size() * embedding);
  for_panels([&](int panel) {
    for (int lane = 0; lane < stream_.live(panel); ++lane) {
      const auto token = static_cast<std::size_t>(panel * stream_.lanes() + lane);
      dequantize(weights_.embedding, tokens[token], 0, config().embedding,
                 embedded_.data() + token * embedding);
    }
    pack(embedded_.data(), stream_, panel);
  });
}

void Llama::project(const Layer& layer, bool rotated) {
  const int query_features = config().query_features();
  const int key_features = config().key_features();
  for_panels([&](int panel) {
    normalize(stream_, panel, layer.attention_norm.data(), config().epsilon, normed_);
  });
  multiply(executor_, normed_,
           {{layer.queries, mixed_, 0},
            {layer.keys, mixed_, query_features},
            {layer.values, mixed_, query_features + key_features}},
           precision_, scratch_);
  for_panels([&](int panel) {
    if (rotated) {
      rotation_.apply(mixed_, panel, 0, config().query_heads + config().heads, config().head_dim);
    }
    unpack(mixed_, panel, 0, query_features, queries_.data());
    unpack(mixed_, panel, query_features, key_features, keys_.data());
    unpack(mixed_, panel, query_features + key_features, key_features, values_.data());
  });
}

void Llama::conclude(const Layer& layer) {
  active_.resize(stream_.tokens(), config().query_features());
  for_panels([&](int panel) { pack(attended_.data(), active_, panel); });
  multiply(executor_, active_, {{layer.attended, stream_, 0, true}}, precision_, scratch_);
  for_panels([&](int panel) {
    normalize(stream_, panel, layer.feed_forward_norm.data(), config().epsilon, normed_);
  });
  multiply(executor_, normed_, {{layer.gate, gates_, 0}, {layer.up, gates_, config().feed_forward}},
           precision_, scratch_);
  active_.resize(stream_.tokens(), config().feed_forward);
  for_panels([&](int panel) { activate(gates_, panel, active_); });
  multiply(executor_, active_, {{layer.down, stream_, 0, true}}, precision_, scratch_);
}

void Llama::score(std::span<const int> rows) {
  const auto vocabulary = static_cast<std::size_t>(config().vocabulary);
  if (logits_.size() < rows.size() * vocabulary) logits_.resize(rows.size() * vocabulary);
  Panels& input = normed_;
  for (std::size_t first = 0; first < rows.size(); first += kScoredTogether) {
    const auto chosen =
        rows.subspan(first, std::min<std::size_t>(kScoredTogether, rows.size() - first));
    active_.resize(static_cast<int>(chosen.size()), config().embedding);
    input.resize(active_.tokens(), config().embedding);
    scored_.resize(active_.tokens(), config().vocabulary);
    for (int panel = 0; panel < active_.panels(); ++panel) {
      for (int lane = 0; lane < active_.lanes(); ++lane) {
        const bool live = lane < active_.live(panel);
        const int row = live ? chosen[static_cast<std::size_t>(panel * active_.lanes() + lane)] : 0;
        const float* from = stream_.at(row / stream_.lanes(), 0) + row % stream_.lanes();
        float* to = active_.at(panel, 0) + lane;
        for (int feature = 0; feature < config().embedding; ++feature) {
          to[feature * active_.lanes()] = live ? from[feature * stream_.lanes()] : 0.0F;
        }
      }
      normalize(active_, panel, weights_.output_norm.data(), config().epsilon, input);
    }
    multiply(executor_, input, {{weights_.output, scored_, 0}}, precision_, scratch_);
    executor_.parallel_for(scored_.panels(), [&](int panel) {
      unpack(scored_, panel, 0, config().vocabulary, logits_.data() + first * vocabulary);
    });
  }
  scored_rows_ = static_cast<int>(rows.size());
}

}  // namespace kvast::decoder
