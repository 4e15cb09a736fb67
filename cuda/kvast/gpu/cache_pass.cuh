// SPDX-License-Identifier: Apache-2.0
// KVCache<Policy, OnGpu<S>>::Pass: new tokens on their way into a cache on the device.
#pragma once

#include "kvast/gpu/kv_cache.cuh"

namespace kvast {

/// Handle of the open pass: append, then commit, for every layer. A Status of failure tears the
/// cache. Dropped before the first commit it leaves the cache as it was, if the device still works,
/// and torn where the policy has seen attention.
template <class PolicyType, class S, class DeviceType, class Arch>
class KVCache<PolicyType, OnGpu<S, DeviceType>, Arch>::Pass {
 public:
  Pass(Pass&& other) noexcept
      : cache_(std::exchange(other.cache_, nullptr)), number_(other.number_) {}
  Pass& operator=(Pass&&) = delete;
  ~Pass() {
    if (cache_ != nullptr && number_ == cache_->memory_.number()) cache_->memory_.drop();
  }

  /// New tokens of a layer, those of all sequences after each other: `keys` [rows, H, D], `values`
  /// [rows, H, Dv], device memory, read when the stream gets there. Numbers that are not finite or
  /// too large for the storage become 0 and are counted (KVCache::counters).
  Status append(int layer, const gpu::Tensor& keys, const gpu::Tensor& values,
                Caller caller = Caller::here()) {
    auto& memory = memory_of(caller);
    memory.expect(layer, gpu::Stage::idle, "append", caller);
    Status status;
    cache_->work_.parts().of_layer(layer, [&](const auto& policy) {
      using State = typename std::remove_cvref_t<decltype(policy)>::State;
      status.then([&] { return append_with<State>(memory, layer, keys, values, caller); });
    });
    return memory.did(layer, status);
  }

  /// Attention of a layer's new tokens over all that is kept of their sequence, themselves
  /// included: `queries` [rows, Q, D], `output` [rows, Q, Dv], device memory, of any element types.
  /// Causal within the pass; sums in f32. Keys are multiplied in the storage's elements, queries
  /// are rounded to them, but for Dense<float>; codes are read as they are, beside f16 queries.
  /// Between append and commit, any number of times; once, where the policy watches. The first call
  /// with so many queries allocates; where that fails (StatusCode::pool_exhausted) the pass goes on
  /// as if it had not been called. Heads of at most 256 features. Throws Error for formats that no
  /// kernel reads.
  Status attend(int layer, const gpu::Tensor& queries, const gpu::OutputTensor& output,
                const gpu::AttendOptions& options = {}, Caller caller = Caller::here()) {
    auto& memory = memory_of(caller);
    memory.expect(layer, gpu::Stage::appended, "attend", caller);
    require(
        Formats::attends, caller, "attend: keys in ", Formats::Keys::kName, " and values in ",
        Formats::Values::kName,
        " are not attended to on the device (int8, int4, int2 and fp8-e4m3 are, keys and values "
        "alike or 8/4 or 4/2 bits); export_dense decodes them");
    const gpu::LayerView& view = memory.view(layer);
    require(std::max(view.head_dim, view.value_dim) <= gpu::kMostAttendDim, caller,
            "attend: heads have ", view.head_dim, " and ", view.value_dim,
            " features, on the device at most ", gpu::kMostAttendDim);
    gpu::check_options(options, caller);
    gpu::AttendCall call{.layer = view, .options = options, .rope = memory.query_rope()};
    call.group = cache_->groups_[static_cast<std::size_t>(layer)];
    call.queries = queries.checked("attend: queries", call.query_heads(), view.head_dim, caller);
    call.output = output.checked("attend: output", call.query_heads(), view.value_dim, caller);
    const float scale =
        options.scale != 0.0F ? options.scale : 1.0F / std::sqrt(static_cast<float>(view.head_dim));
    call.rules = gpu::LogitRules::of(scale, options.softcap);
    if (cache_->work_.is_watched(layer)) cache_->work_.observed().fill_in(call, memory.most_rows());
    Status status = cache_->attention_.run(call, memory.most_rows());
    if (!cache_->attention_.started()) return status;
    if constexpr (Work::kObserves) {
      if (cache_->work_.is_watched(layer)) {
        status.then([&] {
          return cache_->work_.learn(layer, [&](const gpu::WeightRules& rules, const auto& sink) {
            return gpu::show_weights(cache_->attention_, call, rules, sink,
                                     cache_->work_.observed().visible(), memory.pool().stream());
          });
        });
        return memory.did(layer, status, gpu::Stage::observed);
      }
    }
    return memory.did(layer, status);
  }

  /// In place of attend, for engines with attention kernels of their own: what their queries
  /// attended to. Nothing happens where the policy needs no attention. `weights`: see GivenWeights.
  Status observe(int layer, const gpu::GivenWeights& weights, Caller caller = Caller::here()) {
    auto& memory = memory_of(caller);
    memory.expect(layer, gpu::Stage::appended, "observe", caller);
    require(weights.data != nullptr, caller, "observe: weights must not be null");
    require(weights.row_stride >= 0 && weights.head_stride >= 0, caller, "observe: strides are ",
            weights.row_stride, " and ", weights.head_stride, ", must be at least 0");
    if constexpr (Work::kObserves) {
      if (!cache_->work_.is_watched(layer)) return {};
      const gpu::LayerView& view = memory.view(layer);
      const auto show = [&](const gpu::WeightRules& rules, const auto& sink) {
        gpu::ObserveGiven<std::remove_cvref_t<decltype(sink)>> kernel{
            .layer = view,
            .weights = weights,
            .rules = rules,
            .sink = sink,
            .group = cache_->groups_[static_cast<std::size_t>(layer)]};
        kernel.most_blocks = cache_->work_.learned().most_blocks();
        kernel.spread =
            std::clamp(memory.list_capacity() / 16, 1, std::max((1 << 16) / view.tables(), 1));
        return DeviceType::launch(kernel, {view.tables() * kernel.spread, 0},
                                  memory.pool().stream());
      };
      return memory.did(layer, cache_->work_.learn(layer, show), gpu::Stage::observed);
    }
    return {};
  }

  /// Makes the pass final for a layer: evict, seal. A policy that needs attention must have seen
  /// it, by attend or observe.
  Status commit(int layer, Caller caller = Caller::here()) {
    return commit_layers(layer, 1, caller);
  }
  /// For all layers at once: fewer launches.
  Status commit(Caller caller = Caller::here()) {
    return commit_layers(0, memory_of(caller).layers(), caller);
  }

 private:
  friend class KVCache;
  explicit Pass(KVCache& cache) : cache_(&cache), number_(cache.memory_.number()) {}

  auto& memory_of(Caller caller) const {
    require(cache_ != nullptr && cache_->memory_.open() && number_ == cache_->memory_.number(),
            caller, "pass: it is over, or was moved from");
    cache_->memory_.check_capture(caller);
    require(!cache_->memory_.torn(), caller, "pass: the cache is torn; clear it");
    return cache_->memory_;
  }
  /// `State`: that of the layer's policy.
  template <class State>
  Status append_with(const gpu::CacheMemory<DeviceType>& memory, int layer, const gpu::Tensor& keys,
                     const gpu::Tensor& values, Caller caller) const {
    const gpu::LayerView& view = memory.view(layer);
    gpu::Append<typename Formats::Waiting, State> kernel;
    kernel.layer = view;
    kernel.keys = keys.checked("append: keys", view.head_count, view.head_dim, caller);
    kernel.values = values.checked("append: values", view.head_count, view.value_dim, caller);
    kernel.kinds = cache_->kinds_;
    kernel.rope = memory.rope();
    if (view.coded_keys.list != nullptr) {
      kernel.largest_key =
          gpu::detail::largest<typename Formats::Waiting, typename Formats::Keys>();
      kernel.largest_value =
          gpu::detail::largest<typename Formats::Waiting, typename Formats::Values>();
    }
    if (view.key_rotation.dim != 0) {  // coordinates may be larger than numbers by that
      kernel.largest_key /= std::sqrt(static_cast<float>(view.key_rotation.width));
      kernel.largest_value /= std::sqrt(static_cast<float>(view.value_rotation.width));
    }
    if (kernel.rope.angles != nullptr)
      kernel.largest_key /= 1.4142137F * std::max(kernel.rope.scale, 1.0F);
    const auto stream = memory.pool().stream();
    const gpu::Grid grid{view.tables(), kernel.kSharedBytes};
    if (memory.most_rows() <= kBlockTokens) return DeviceType::launch(kernel, grid, stream);
    kernel.writes = false;
    if (Status status = DeviceType::launch(kernel, grid, stream); !status) return status;
    kernel.opens = false;
    kernel.writes = true;
    kernel.spread = std::min(blocks_of(memory.most_rows()),
                             std::max((1 << 30) / std::max(view.tables(), 1), 1));
    return DeviceType::launch(kernel, {view.tables() * kernel.spread, kernel.kSharedBytes}, stream);
  }
  Status commit_layers(int first, int count, Caller caller) {
    auto& memory = memory_of(caller);
    for (int layer = first; layer < first + count; ++layer) {
      const bool watched = cache_->work_.is_watched(layer);
      memory.expect(layer, watched ? gpu::Stage::observed : gpu::Stage::appended, "commit", caller);
    }
    return finish(memory.commit(first, count, [&](const gpu::CommitScope& scope, bool seals) {
      return run(memory, scope, first, seals);
    }));
  }
  Status run(gpu::CacheMemory<DeviceType>& memory, const gpu::CommitScope& scope, int first,
             bool seals) const {
    const auto stream = memory.pool().stream();
    bool acts = false;
    Status status;
    if constexpr (Work::kEvicts)
      status.then([&] { return cache_->work_.evict(scope, first, acts); });
    if constexpr (Formats::codes) {
      if (seals) status.then([&] { return gpu::seal<Formats, DeviceType>(scope, stream); });
    }
    if (acts || seals) status.then([&] { return gpu::compact<DeviceType>(scope, stream); });
    if constexpr (Formats::codes && Work::kEvicts) {
      if (acts || seals)
        status.then([&] {
          return gpu::repack<Formats, DeviceType>(scope, cache_->work_.side_bytes(), stream);
        });
    }
    return status;
  }
  Status finish(Status status) {
    if (!status || !cache_->memory_.open()) cache_ = nullptr;
    return status;
  }

  KVCache* cache_;
  std::uint64_t number_;  ///< of the memory's pass
};

}  // namespace kvast
