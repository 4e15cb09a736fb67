// SPDX-License-Identifier: Apache-2.0
// The decoder as programs hold it: on the CPU, or with weights and caches on a GPU.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "bench/quality/any_cache.h"
#include "examples/decoder/llama.h"

namespace kvast::quality {

/// Llama or DeviceLlama behind a virtual call per pass.
class AnyModel {
 public:
  virtual ~AnyModel() = default;

  /// As Llama::forward. The cache is one that was made with this model's device().
  virtual Status forward(AnyCache& cache, std::span<const int> tokens, int first_position,
                         const PassOptions& pass, std::span<const int> rows) = 0;
  /// The same with the logits of the last token.
  Status forward(AnyCache& cache, std::span<const int> tokens, int first_position,
                 const PassOptions& pass) {
    const int last = static_cast<int>(tokens.size()) - 1;
    return forward(cache, tokens, first_position, pass, {&last, 1});
  }
  virtual std::span<const float> logits(int index = 0) const = 0;
  int best(int index = 0) const { return decoder::best_token(logits(index)); }

  virtual const decoder::LlamaConfig& config() const = 0;
  /// Where its caches are made; null: on the host.
  virtual CacheDevice* device() = 0;
  /// Not numbers where nobody takes the time: on a GPU, whose calls return before it is spent.
  virtual decoder::CacheTime cache_time() const = 0;
  virtual void reset_cache_time() = 0;
};

/// `device` is cpu or gpu. Throws FileError as Llama, and DeviceError where there is no GPU or the
/// program was built without CUDA.
std::unique_ptr<AnyModel> open_model(const decoder::Gguf& file, Executor executor,
                                     const std::string& device);

/// The latter of the two; defined by gpu/device_model.cu or by no_gpu.cpp.
std::unique_ptr<AnyModel> open_on_gpu(const decoder::LlamaWeights& weights);

/// The values of --device.
inline constexpr const char* kDeviceHelp =
    "where weights and cache are: cpu, or gpu (in a build with KVAST_CUDA)";

}  // namespace kvast::quality
