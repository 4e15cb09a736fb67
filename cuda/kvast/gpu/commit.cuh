// SPDX-License-Identifier: Apache-2.0
// commit: rank, select, seal, compact, repack; what is launched at the end of a pass, and in which
// order.
#pragma once

#include <algorithm>

#include "kvast/gpu/encode.cuh"
#include "kvast/gpu/evict_memory.cuh"
#include "kvast/gpu/pool_ranks.cuh"
#include "kvast/gpu/rank.cuh"
#include "kvast/gpu/repack.cuh"
#include "kvast/gpu/select.cuh"
#include "kvast/gpu/share_ranks.cuh"

namespace kvast::gpu {

/// Layers that are committed together.
struct CommitScope {
  detail::Place place{};
  Turn* turns = nullptr;  ///< of the first layer on
  int* sealed = nullptr;  ///< [tables] out
  int layers = 1;
  int sequences = 1;
  int all_layers = 1;  ///< of the cache
  bool ends_prompt = false;
  int sealable = 0;  ///< tokens of one head that may be sealed, about

  int tables() const { return layers * place.most_tables; }
};

/// Ranks tokens and clears the live bits of those that go.
template <class Policy, class DeviceType>
class Evict {
 public:
  Evict(const Policy& policy, const EvictMemory<DeviceType>& memory, HeadChoices<Policy> choices,
        const CommitScope& scope, typename DeviceType::Stream stream)
      : policy_(policy), memory_(memory), choices_(choices), scope_(scope), stream_(stream) {}

  Status run() const {
    if constexpr (!kComparesRanks<Policy>) {
      return launch(Drop<Policy>{scope_.place, policy_}, scope_.tables(), 0);
    } else {
      Status status = launch(
          Rank<Policy>{scope_.place, policy_, scope_.all_layers, scope_.ends_prompt, choices_},
          scope_.tables(), 0);
      status.then([&] { return pool(); });
      status.then([&] { return judge_together(); });
      status.then([&] {
        return launch(Select{scope_.place, scope_.turns}, scope_.tables(), Select::kSharedBytes);
      });
      return status;
    }
  }

 private:
  template <class Kernel>
  Status launch(const Kernel& kernel, int blocks, std::size_t shared_bytes) const {
    return DeviceType::launch(kernel, {blocks, shared_bytes}, stream_);
  }
  /// Layer by layer: votes of all at once would be as large as a part of the cache.
  Status pool() const {
    const Pooling pooling = kvast::detail::pooling_of(policy_);
    if (pooling.width <= 1) return {};
    Status status;
    for (int layer = 0; layer < scope_.layers; ++layer) {
      const PoolRanks kernel{
          .place = {scope_.place.layers + layer, scope_.place.most_tables},
          .turns = scope_.turns + std::ptrdiff_t{layer} * scope_.place.most_tables,
          .pooling = pooling,
          .votes = memory_.votes,
          .stride = memory_.stride};
      status.then(
          [&] { return launch(kernel, scope_.place.most_tables, PoolRanks::kSharedBytes); });
    }
    return status;
  }
  Status judge_together() const {
    const detail::SequencePlace place{scope_.place.layers, scope_.sequences,
                                      scope_.place.most_tables};
    const int blocks = scope_.layers * scope_.sequences;
    if constexpr (kvast::detail::scope_of<Policy>() == Scope::layer)
      return launch(ShareRanks{place, scope_.turns}, blocks, 0);
    if constexpr (kvast::detail::allocates<Policy>()) {
      return launch(
          AllocateBudget{place, scope_.turns, policy_.allocation(), memory_.stakes, memory_.rivals},
          blocks, AllocateBudget::kSharedBytes);
    }
    return {};
  }

  const Policy& policy_;
  const EvictMemory<DeviceType>& memory_;
  HeadChoices<Policy> choices_;
  const CommitScope& scope_;
  typename DeviceType::Stream stream_;
};

/// Encodes the oldest waiting tokens.
template <class Formats, class DeviceType>
Status seal(const CommitScope& scope, typename DeviceType::Stream stream) {
  Status status = DeviceType::launch(ChooseSealed{scope.place, scope.sealed},
                                     {scope.tables(), ChooseSealed::kSharedBytes}, stream);
  const int spread =
      std::clamp(scope.sealable / kBlockTokens, 1, std::clamp((1 << 30) / scope.tables(), 1, 64));
  const auto encode = [&](auto kernel) {
    return DeviceType::launch(kernel, {scope.tables() * spread, kernel.kSharedBytes}, stream);
  };
  status.then([&] {
    return encode(EncodeSealed<typename Formats::Keys, Part::keys, typename Formats::Waiting>{
        scope.place, scope.sealed, scope.tables(), spread});
  });
  status.then([&] {
    return encode(EncodeSealed<typename Formats::Values, Part::values, typename Formats::Waiting>{
        scope.place, scope.sealed, scope.tables(), spread});
  });
  return status;
}

/// Fills holes and gives back what holds nothing any more.
template <class DeviceType>
Status compact(const CommitScope& scope, typename DeviceType::Stream stream) {
  return DeviceType::launch(Compact{scope.place}, {scope.tables(), Compact::kSharedBytes}, stream);
}

/// Merges sparse coded blocks, whose records have `side_bytes`.
template <class Formats, class DeviceType>
Status repack(const CommitScope& scope, std::size_t side_bytes,
              typename DeviceType::Stream stream) {
  using Kernel = Repack<typename Formats::Keys, typename Formats::Values>;
  return DeviceType::launch(Kernel{scope.place}, {scope.tables(), Kernel::shared_bytes(side_bytes)},
                            stream);
}

}  // namespace kvast::gpu
