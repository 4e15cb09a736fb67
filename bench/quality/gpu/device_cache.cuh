// SPDX-License-Identifier: Apache-2.0
// DeviceCache around KVCache<Policy, OnGpu<...>>.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/quality/gpu/kept_layers.cuh"
#include "bench/quality/on_device.h"
#include "bench/quality/typed_cache.h"
#include "examples/decoder/gpu/device_array.cuh"
#include "kvast/gpu/convert.cuh"

namespace kvast::quality {

template <class Policy, class Kept, class DeviceType>
class TypedDeviceCache final : public DeviceCache {
 public:
  using Cache = KVCache<Policy, OnGpu<Kept, DeviceType>>;

  TypedDeviceCache(const Policy& policy, const DeviceCacheSetup& setup, gpu::Pool<DeviceType>& pool)
      : shape_(setup.shape),
        unrotated_(setup.positions != Positions::original),
        kinds_(pool.stream()),
        cache_(setup.shape, policy, {kept_layers<Kept>(setup.storage)}, pool,
               {.positions = setup.positions, .rope = unrotated_ ? setup.rope : Rope{}}) {}

  Status begin(const PassOptions& options) override {
    require(options.positions.empty(), Caller::here(),
            "begin: token positions with gaps are not on the device");
    gpu::PassOptions pass{.tokens = options.tokens,
                          .last_of_prompt = options.last_of_prompt,
                          .more_of_prompt = options.more_of_prompt};
    if (Policy::needs.token_kinds && !options.kinds.empty()) {
      sent_kinds_.assign(options.kinds.begin(), options.kinds.end());
      if (Status status = kinds_.send(sent_kinds_.data(), sent_kinds_.size()); !status)
        return status;
      pass.kinds = kinds_.data();
    }
    auto begun = cache_.begin(pass);
    if (!begun) return begun.status();
    pass_.emplace(std::move(*begun));
    samples_ = options.tokens > 1;
    return {};
  }
  void append(int layer, const float* keys, const float* values) override {
    decoder::require_device(pass_->append(layer, keys, values));
    if (samples_) (void)bytes_in_use();
  }
  void attend(int layer, const float* queries, float* output) override {
    decoder::require_device(pass_->attend(layer, queries, output));
  }
  void commit(int layer) override {
    decoder::require_device(pass_->commit(layer));
    if (layer + 1 == shape_.layers) pass_.reset();
    if (samples_) (void)bytes_in_use();
  }
  std::unique_ptr<AnyCache> fork() override {
    throw decoder::DeviceError("a cache on the GPU cannot fork yet");
  }
  bool forks() const override { return false; }
  bool wants_unrotated() const override { return unrotated_; }
  int length() const override { return cache_.length(0); }
  std::size_t bytes_in_use() const override {
    const std::size_t bytes = value_of(cache_.bytes_in_use());
    peak_ = std::max(peak_, bytes);
    return bytes;
  }
  std::size_t bytes_peak() const override { return peak_; }
  double kept_mean() const override {
    double tokens = 0;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      for (int head = 0; head < shape_.heads; ++head)
        tokens += value_of(cache_.tokens(0, layer, head));
    }
    return tokens / (shape_.layers * shape_.heads);
  }
  std::vector<int> kept(int layer, int head) const override {
    return value_of(cache_.kept(0, layer, head));
  }
  std::string report() const override {
    RuleCounts counts;
    if constexpr (detail::Chooses<Policy>) {
      for (int layer = 0; layer < shape_.layers; ++layer) {
        for (int head = 0; head < shape_.heads; ++head)
          counts.add(value_of(cache_.choice(0, layer, head)).rule);
      }
    }
    return counts.text();
  }
  Status load(AnyCache& host) override {
    auto* typed = dynamic_cast<TypedCache<Policy>*>(&host);
    require(typed != nullptr, Caller::here(), "load: the host's cache has another policy");
    Status status = cache_.clear();
    status.then([&] { return gpu::to_device(typed->cache(), cache_, 0); });
    return status;
  }

 private:
  template <class Value>
  static Value value_of(Result<Value> result) {
    decoder::require_device(result.status());
    return *result;
  }

  Shape shape_;
  bool unrotated_;
  bool samples_ = false;  ///< bytes of this pass: a prompt's, where reading them does not matter
  decoder::DeviceArray<DeviceType, TokenKind> kinds_;
  std::vector<TokenKind> sent_kinds_;
  mutable Cache cache_;  // what it is asked it reads from the device
  std::optional<typename Cache::Pass> pass_;
  mutable std::size_t peak_ = 0;
};

/// Each file that calls it compiles all policies.
template <class Kept, class DeviceType>
std::unique_ptr<DeviceCache> make_kept(const DevicePolicy& policy, const DeviceCacheSetup& setup,
                                       gpu::Pool<DeviceType>& pool) {
  return std::visit(
      [&]<class Policy>(const Policy& one) -> std::unique_ptr<DeviceCache> {
        static_assert(gpu::detail::runs_on_device<Policy>());
        return std::make_unique<TypedDeviceCache<Policy, Kept, DeviceType>>(one, setup, pool);
      },
      policy);
}

}  // namespace kvast::quality
