// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/any_model.h"

namespace kvast::quality {

namespace {

class HostModel final : public AnyModel {
 public:
  HostModel(const decoder::Gguf& file, Executor executor) : llama_(file, executor) {}

  Status forward(AnyCache& cache, std::span<const int> tokens, int first_position,
                 const PassOptions& pass, std::span<const int> rows) override {
    return llama_.forward(cache, tokens, first_position, pass, rows);
  }
  std::span<const float> logits(int index) const override { return llama_.logits(index); }
  const decoder::LlamaConfig& config() const override { return llama_.config(); }
  CacheDevice* device() override { return nullptr; }
  decoder::CacheTime cache_time() const override { return llama_.cache_time(); }
  void reset_cache_time() override { llama_.reset_cache_time(); }

 private:
  decoder::Llama llama_;
};

}  // namespace

std::unique_ptr<AnyModel> open_model(const decoder::Gguf& file, Executor executor,
                                     const std::string& device) {
  if (device == "gpu") return open_on_gpu(decoder::LlamaWeights(file));
  return std::make_unique<HostModel>(file, executor);
}

}  // namespace kvast::quality
