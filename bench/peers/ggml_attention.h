// SPDX-License-Identifier: Apache-2.0
// Decode attention by ggml: several layers of keys and values in one of its types, and the graph
// that attends to all of them, layer after layer, as llama.cpp builds it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "bench/peers/ggml.h"
#include "bench/peers/tokens.h"
#include "kvast/core/half.h"

namespace kvast::peers {

/// The ways in which ggml can do it.
enum class Way {
  flash,    ///< flash attention on llama.cpp's layout: [token][head][dim]
  by_head,  ///< flash attention where a head's tokens lie together: [head][token][dim]
  products  ///< K q, softmax, V w on llama.cpp's layout for it, V transposed; V is always f16
};

/// What a number of ggml's blocks is worth. `numbers` is a multiple of 32; f16 has no blocks.
inline std::vector<float> decoded(TensorType type, const std::byte* from, std::size_t numbers) {
  std::vector<float> to(numbers);
  const auto half_at = [](const std::byte* at) {
    half number;
    std::memcpy(&number, at, 2);
    return to_float(number);
  };
  if (type == TensorType::f16) {
    for (std::size_t at = 0; at < numbers; ++at) to[at] = half_at(from + 2 * at);
    return to;
  }
  const std::size_t block_bytes =
      type == TensorType::q8_0 ? 34 : 18;  // an f16 scale, then 32 codes
  for (std::size_t at = 0; at < numbers; ++at) {
    const std::byte* block = from + at / 32 * block_bytes;
    const std::size_t in = at % 32;
    int code = 0;
    if (type == TensorType::q8_0) {
      code = static_cast<std::int8_t>(block[2 + in]);
    } else {  // low halves of the bytes are numbers 0..15, high halves 16..31
      const auto byte = static_cast<unsigned>(block[2 + in % 16]);
      code = static_cast<int>(in < 16 ? byte & 15U : byte >> 4U) - 8;
    }
    to[at] = half_at(block) * static_cast<float>(code);
  }
  return to;
}

class GgmlAttention {
 public:
  /// Every layer gets a copy of `tokens` of its own.
  GgmlAttention(const Ggml& ggml, Backend* backend, const Tokens& tokens, int layers,
                TensorType type, Way way)
      : ggml_(ggml), backend_(backend), tokens_(tokens), type_(type), way_(way) {
    const auto count = static_cast<std::size_t>(layers);
    const auto numbers = static_cast<std::int64_t>(tokens.keys.size());
    const std::size_t layer = ggml.row_size(type, numbers) + ggml.row_size(value_type(), numbers) +
                              2 * (ggml.tensor_overhead() + 64);
    data_ = ggml.init(
        {count * layer + 4 * tokens.query.size() + (std::size_t{1} << 20), nullptr, false});
    const std::size_t nodes = 8 * count + 64;
    plan_ =
        ggml.init({2 * nodes * ggml.tensor_overhead() + ggml.graph_overhead_custom(nodes, false),
                   nullptr, true});
    allocator_ = ggml.gallocr_new(ggml.backend_cpu_buffer_type());
    if (data_ == nullptr || plan_ == nullptr) throw std::runtime_error("ggml: out of memory");
    query_ = ggml.new_tensor_3d(data_, TensorType::f32, tokens.dim, 1, tokens.query_heads);
    std::memcpy(ggml.get_data(query_), tokens.query.data(), 4 * tokens.query.size());
    graph_ = ggml.new_graph_custom(plan_, nodes, false);
    for (int index = 0; index < layers; ++index) {
      keys_.push_back(store(type, tokens.keys, false));
      values_.push_back(store(value_type(), tokens.values, way == Way::products));
      outputs_.push_back(attend(keys_.back(), values_.back()));
      ggml.set_output(outputs_.back());
      ggml.build_forward_expand(graph_, outputs_.back());
    }
    if (!ggml.gallocr_alloc_graph(allocator_, graph_))
      throw std::runtime_error("ggml: no memory for the graph");
  }
  ~GgmlAttention() {
    ggml_.gallocr_free(allocator_);
    ggml_.free(plan_);
    ggml_.free(data_);
  }
  GgmlAttention(const GgmlAttention&) = delete;
  GgmlAttention& operator=(const GgmlAttention&) = delete;

  /// One step through all layers.
  void step() {
    if (ggml_.backend_graph_compute(backend_, graph_) != 0)
      throw std::runtime_error("ggml: the graph failed");
  }

  /// Of keys and values, over all layers.
  double bytes() const {
    return static_cast<double>(keys_.size()) *
           static_cast<double>(ggml_.nbytes(keys_[0]) + ggml_.nbytes(values_[0]));
  }

  /// Relative L2 error of the last step's outputs against `exact`: the worst of the layers.
  double error(const std::vector<double>& exact) const {
    double worst = 0;
    for (const Tensor* output : outputs_) {
      const auto* got = static_cast<const float*>(ggml_.get_data(output));
      worst = std::max(worst, test::relative_error(got, exact));
    }
    return worst;
  }

  /// The tokens that the first layer stores, decoded by us.
  Tokens stored() const {
    Tokens tokens = tokens_;
    const auto read = [&](const Tensor* tensor, TensorType type, bool transposed,
                          std::vector<float>& to) {
      const auto* bytes = static_cast<const std::byte*>(ggml_.get_data(tensor));
      const std::vector<float> flat = decoded(type, bytes, to.size());
      for (std::size_t at = 0; at < to.size(); ++at) to[place(at, transposed)] = flat[at];
    };
    read(keys_[0], type_, false, tokens.keys);
    read(values_[0], value_type(), way_ == Way::products, tokens.values);
    return tokens;
  }

 private:
  TensorType value_type() const { return way_ == Way::products ? TensorType::f16 : type_; }

  /// Where in [token][head][dim] the number stands that is at `at` in a tensor of this way.
  std::size_t place(std::size_t at, bool transposed) const {
    const auto dims = static_cast<std::size_t>(tokens_.dim);
    const auto heads = static_cast<std::size_t>(tokens_.heads);
    const std::size_t count = tokens_.count();
    if (transposed) {  // [head][dim][token]
      const std::size_t row = at / count;
      return (at % count * heads + row / dims) * dims + row % dims;
    }
    if (way_ != Way::by_head) return at;
    const std::size_t row = at / dims;  // [head][token][dim]
    return (row % count * heads + row / count) * dims + at % dims;
  }

  /// A new tensor with `numbers` ([token][head][dim]) in this way's order.
  Tensor* store(TensorType type, const std::vector<float>& numbers, bool transposed) {
    const std::int64_t dims = tokens_.dim;
    const std::int64_t heads = tokens_.heads;
    const auto count = static_cast<std::int64_t>(tokens_.count());
    std::vector<float> ordered(numbers.size());
    for (std::size_t at = 0; at < numbers.size(); ++at)
      ordered[at] = numbers[place(at, transposed)];
    const std::int64_t width = transposed ? count : dims;
    Tensor* tensor = transposed             ? ggml_.new_tensor_3d(data_, type, count, dims, heads)
                     : way_ == Way::by_head ? ggml_.new_tensor_3d(data_, type, dims, count, heads)
                                            : ggml_.new_tensor_3d(data_, type, dims, heads, count);
    ggml_.quantize_chunk(type, ordered.data(), ggml_.get_data(tensor), 0,
                         static_cast<std::int64_t>(numbers.size()) / width, width, nullptr);
    return tensor;
  }

  /// No mask: a decoded token sees all tokens, and llama.cpp's would only cost it time.
  Tensor* attend(Tensor* keys, Tensor* values) {
    const auto scale = static_cast<float>(1.0 / std::sqrt(tokens_.dim));
    if (way_ != Way::by_head) keys = ggml_.permute(plan_, keys, 0, 2, 1, 3);
    if (way_ == Way::products) {
      Tensor* logits = ggml_.mul_mat(plan_, keys, query_);
      Tensor* weights = ggml_.soft_max_ext(plan_, logits, nullptr, scale, 0.0F);
      return ggml_.mul_mat(plan_, values, weights);
    }
    if (way_ == Way::flash) values = ggml_.permute(plan_, values, 0, 2, 1, 3);
    return ggml_.flash_attn_ext(plan_, query_, keys, values, nullptr, scale, 0.0F, 0.0F);
  }

  const Ggml& ggml_;
  Backend* backend_;
  const Tokens& tokens_;
  TensorType type_;
  Way way_;
  Context* data_ = nullptr;
  Context* plan_ = nullptr;
  Allocator* allocator_ = nullptr;
  Graph* graph_ = nullptr;
  Tensor* query_ = nullptr;
  std::vector<Tensor*> keys_, values_, outputs_;  // [layers]
};

}  // namespace kvast::peers
