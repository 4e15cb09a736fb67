// SPDX-License-Identifier: Apache-2.0
// The Llama decoder with its weights and activations on a device, around somebody else's cache
// there.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "examples/decoder/gpu/device_weights.cuh"
#include "examples/decoder/gpu/kernels.cuh"
#include "examples/decoder/llama_file.h"

namespace kvast::decoder {

/// One model, for one sequence at a time. All work is ordered on one stream. Weights are rounded to
/// f16 and multiplied with f32 activations, in f32.
template <class DeviceType>
class DeviceLlama {
 public:
  using Stream = typename DeviceType::Stream;

  /// Sends the weights, and waits until they are there. Throws DeviceError where the device is
  /// missing or has no memory for them.
  explicit DeviceLlama(const LlamaWeights& file, Stream stream = {})
      : stream_(stream), weights_(file, stream) {
    require_device(DeviceType::wait(stream_));
  }

  const LlamaConfig& config() const { return weights_.config; }

  /// As Llama::forward, but `cache` takes and gives rows in device memory:
  ///   cache   begin(PassOptions) -> Status, append(layer, keys, values), attend(layer, queries,
  ///           output), commit(layer), on the model's stream
  /// Returns what begin() returned, or that there was no memory; nothing has changed then. Throws
  /// std::out_of_range as Llama, and DeviceError where the device fails in the middle. Waits until
  /// the device is done.
  template <class Cache, class PassOptions>
  Status forward(Cache& cache, std::span<const int> tokens, int first_position, PassOptions pass,
                 std::span<const int> rows) {
    check_pass(config(), tokens, rows);
    pass.tokens = static_cast<int>(tokens.size());
    bool rotated = true;
    if constexpr (requires { cache.wants_unrotated(); }) rotated = !cache.wants_unrotated();
    if (Status status = send(tokens, first_position, rows); !status) return status;
    if (Status status = cache.begin(pass); !status) return status;
    run(gpu_kernels::EmbedTokens{weights_.embedding.view(), tokens_.data(), streamed_.data()},
        pass.tokens);
    for (int index = 0; index < config().layers; ++index) {
      const auto& layer = weights_.layers[static_cast<std::size_t>(index)];
      project(layer, pass.tokens, rotated);
      cache.append(index, static_cast<const float*>(keys_.data()),
                   static_cast<const float*>(values_.data()));
      cache.attend(index, static_cast<const float*>(queries_.data()), attended_.data());
      cache.commit(index);
      conclude(layer, pass.tokens);
    }
    score(static_cast<int>(rows.size()));
    return {};
  }
  /// The same with the logits of the last token.
  template <class Cache, class PassOptions>
  Status forward(Cache& cache, std::span<const int> tokens, int first_position, PassOptions pass) {
    const int last = static_cast<int>(tokens.size()) - 1;
    return forward(cache, tokens, first_position, pass, {&last, 1});
  }

  /// [vocabulary], of the index-th of the rows asked for in the last forward(); on the host.
  std::span<const float> logits(int index = 0) const {
    return logits_row(scored_, config().vocabulary, scored_rows_, index);
  }

 private:
  using Layer = typename DeviceWeights<DeviceType>::Layer;
  template <class Number>
  using Array = DeviceArray<DeviceType, Number>;

  template <class Kernel>
  void run(const Kernel& kernel, gpu::Grid grid) {
    require_device(DeviceType::launch(kernel, grid, stream_));
  }
  template <class Kernel>
  void run(const Kernel& kernel, int blocks) {
    run(kernel, gpu::Grid{blocks, 0});
  }

  /// Memory for a pass, its tokens, and the sines and cosines of their positions.
  Status send(std::span<const int> tokens, int first_position, std::span<const int> rows) {
    scored_rows_ = 0;
    sent_tokens_.assign(tokens.begin(), tokens.end());
    sent_rows_.assign(rows.begin(), rows.end());
    const Rope& rope = config().rope;
    sent_angles_.resize(tokens.size() * static_cast<std::size_t>(rope.width));
    for (std::size_t token = 0; token < tokens.size(); ++token)
      angles_at(rope, first_position + static_cast<int>(token),
                sent_angles_.data() + token * static_cast<std::size_t>(rope.width));
    const auto room = [&](int features) {
      return tokens.size() * static_cast<std::size_t>(features);
    };
    Status status = tokens_.send(sent_tokens_.data(), sent_tokens_.size());
    status.then([&] { return angles_.send(sent_angles_.data(), sent_angles_.size()); });
    if (!rows.empty())
      status.then([&] { return rows_.send(sent_rows_.data(), sent_rows_.size()); });
    status.then([&] { return streamed_.provide(room(config().embedding)); });
    const auto embedding = static_cast<std::size_t>(config().embedding);
    const std::size_t normed = std::max(tokens.size(), rows.size());  // rows may be asked for twice
    status.then([&] { return normed_.provide(normed * embedding); });
    for (Array<float>* numbers : {&queries_, &attended_})
      status.then([&] { return numbers->provide(room(config().query_features())); });
    for (Array<float>* numbers : {&keys_, &values_})
      status.then([&] { return numbers->provide(room(config().key_features())); });
    for (Array<float>* numbers : {&gate_, &up_})
      status.then([&] { return numbers->provide(room(config().feed_forward)); });
    const std::size_t scored = rows.size() * static_cast<std::size_t>(config().vocabulary);
    status.then([&] { return logits_.provide(scored); });
    scored_.resize(scored);
    return status;
  }

  void normalize(const Array<float>& gain, int rows, const int* chosen = nullptr) {
    run(gpu_kernels::NormalizeRows{.from = streamed_.data(),
                                   .chosen = chosen,
                                   .gain = gain.data(),
                                   .to = normed_.data(),
                                   .features = config().embedding,
                                   .epsilon = config().epsilon},
        {rows, gpu_kernels::NormalizeRows::kSharedBytes});
  }
  void multiply(const DeviceMatrixMemory<DeviceType>& matrix, const Array<float>& from,
                Array<float>& to, int rows, bool adds = false) {
    const gpu_kernels::MultiplyRows kernel{
        .matrix = matrix.view(), .from = from.data(), .to = to.data(), .rows = rows, .adds = adds};
    run(kernel, kernel.grid());
  }
  void turn(Array<float>& heads, int count, int rows) {
    gpu_kernels::TurnHeads kernel = gpu_kernels::TurnHeads::of(config().rope);
    kernel.heads = heads.data();
    kernel.angles = angles_.data();
    kernel.count = count;
    kernel.head_dim = config().head_dim;
    run(kernel, rows);
  }

  void project(const Layer& layer, int rows, bool rotated) {
    normalize(layer.attention_norm, rows);
    multiply(layer.queries, normed_, queries_, rows);
    multiply(layer.keys, normed_, keys_, rows);
    multiply(layer.values, normed_, values_, rows);
    if (!rotated) return;
    turn(queries_, config().query_heads, rows);
    turn(keys_, config().heads, rows);
  }
  void conclude(const Layer& layer, int rows) {
    multiply(layer.attended, attended_, streamed_, rows, true);
    normalize(layer.feed_forward_norm, rows);
    multiply(layer.gate, normed_, gate_, rows);
    multiply(layer.up, normed_, up_, rows);
    const gpu_kernels::Activate kernel{gate_.data(), up_.data(),
                                       std::int64_t{rows} * config().feed_forward};
    run(kernel, kernel.grid());
    multiply(layer.down, gate_, streamed_, rows, true);
  }
  void score(int rows) {
    if (rows > 0) {
      normalize(weights_.output_norm, rows, rows_.data());
      multiply(weights_.output(), normed_, logits_, rows);
      require_device(DeviceType::copy(scored_.data(), logits_.data(),
                                      scored_.size() * sizeof(float), stream_));
    }
    require_device(DeviceType::wait(stream_));
    scored_rows_ = rows;
  }

  Stream stream_;
  DeviceWeights<DeviceType> weights_;
  Array<int> tokens_{stream_}, rows_{stream_};
  Array<float> angles_{stream_};
  Array<float> streamed_{stream_};  // the residual stream, [rows, embedding]
  Array<float> normed_{stream_};
  Array<float> queries_{stream_}, keys_{stream_}, values_{stream_}, attended_{stream_};
  Array<float> gate_{stream_}, up_{stream_};
  Array<float> logits_{stream_};
  std::vector<int> sent_tokens_, sent_rows_;  // what copies read stays until the pass is done
  std::vector<float> sent_angles_, scored_;
  int scored_rows_ = 0;
};

}  // namespace kvast::decoder
