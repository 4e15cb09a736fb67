// SPDX-License-Identifier: Apache-2.0
// The weights of a Llama model in device memory: matrices in f16, norms in f32.
#pragma once

#include <utility>
#include <vector>

#include "examples/decoder/gpu/device_array.cuh"
#include "examples/decoder/gpu/kernels.cuh"
#include "examples/decoder/llama_file.h"

namespace kvast::decoder {

/// One matrix.
template <class DeviceType>
class DeviceMatrixMemory {
 public:
  /// Throws DeviceError where there is no memory. Returns when `weights` was read.
  DeviceMatrixMemory(const Matrix& weights, typename DeviceType::Stream stream)
      : rows_(weights.rows), columns_(weights.columns), numbers_(stream) {
    const auto stride =
        static_cast<std::size_t>(gpu_kernels::DeviceMatrix::stride_of(weights.columns));
    std::vector<half> rounded(static_cast<std::size_t>(rows_) * stride);
    std::vector<float> row(static_cast<std::size_t>(columns_));
    for (int index = 0; index < rows_; ++index) {
      dequantize(weights, index, 0, columns_, row.data());
      half* to = rounded.data() + static_cast<std::size_t>(index) * stride;
      for (const float number : row) *to++ = to_half(number);
    }
    require_device(numbers_.send(rounded.data(), rounded.size()));
    require_device(DeviceType::wait(stream));
  }
  gpu_kernels::DeviceMatrix view() const { return {numbers_.data(), rows_, columns_}; }

 private:
  int rows_;
  int columns_;
  DeviceArray<DeviceType, half> numbers_;
};

template <class DeviceType>
struct DeviceWeights {
  using Stream = typename DeviceType::Stream;
  using Held = DeviceMatrixMemory<DeviceType>;
  using Vector = DeviceArray<DeviceType, float>;

  struct Layer {
    Vector attention_norm, feed_forward_norm;
    Held queries, keys, values, attended, gate, up, down;

    Layer(const LlamaWeights::Layer& file, Stream stream)
        : attention_norm(vector(file.attention_norm, stream)),
          feed_forward_norm(vector(file.feed_forward_norm, stream)),
          queries(file.queries, stream),
          keys(file.keys, stream),
          values(file.values, stream),
          attended(file.attended, stream),
          gate(file.gate, stream),
          up(file.up, stream),
          down(file.down, stream) {}
  };

  /// Norms are read until the stream has passed: `file` must stay till then.
  DeviceWeights(const LlamaWeights& file, Stream stream)
      : config(file.config),
        embedding(file.embedding, stream),
        output_norm(vector(file.output_norm, stream)) {
    if (file.output.data != file.embedding.data) untied.emplace_back(file.output, stream);
    layers.reserve(file.layers.size());
    for (const LlamaWeights::Layer& layer : file.layers) layers.emplace_back(layer, stream);
  }
  const Held& output() const { return untied.empty() ? embedding : untied[0]; }

  LlamaConfig config;
  Held embedding;
  std::vector<Held> untied;  ///< the output's matrix, where it is not the embedding's
  Vector output_norm;
  std::vector<Layer> layers;

 private:
  static Vector vector(const std::vector<float>& numbers, Stream stream) {
    Vector sent(stream);
    require_device(sent.send(numbers.data(), numbers.size()));
    return sent;
  }
};

}  // namespace kvast::decoder
