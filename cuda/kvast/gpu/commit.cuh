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
  int sealable = 0;  ///< tokens of one head that may be sealed, about

  int tables() const { return layers * place.most_tables; }
  /// `count` of these layers from `first` on.
  CommitScope part(int first, int count) const {
    CommitScope scope = *this;
    scope.place.layers += first;
    scope.turns += std::ptrdiff_t{first} * place.most_tables;
    scope.layers = count;
    return scope;
  }
};

/// Ranks the tokens of heads that have one policy, and clears the live bits of those that go.
template <class Policy, class Heads, class DeviceType>
class Evict {
 public:
  Evict(const Policy& policy, const Asked<Heads>& asked, const EvictMemory<DeviceType>& memory,
        HeadChoices<Policy> choices, const CommitScope& scope, typename DeviceType::Stream stream)
      : policy_(policy),
        asked_(asked),
        memory_(memory),
        choices_(choices),
        scope_(scope),
        stream_(stream) {}

  Status run() const {
    if constexpr (!kWritesRanks<Policy>) {
      return launch(Drop<Policy, Heads>{scope_.place, policy_, asked_}, scope_.tables(), 0);
    } else {
      Status status = rank();
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
  Status rank() const {
    using Kernel = Rank<Policy, Heads>;
    Kernel kernel{scope_.place, policy_, asked_, choices_};
    if constexpr (!kvast::detail::RanksByHead<Policy>) {
      return launch(kernel, scope_.tables(), Kernel::kSharedBytes);
    } else {
      kernel.orders = {memory_.orders(), memory_.stride};
      return each_layer([&](const detail::Place& place, int) {
        kernel.place = place;
        return launch(kernel, place.most_tables, Kernel::kSharedBytes);
      });
    }
  }
  Status pool() const {
    const Pooling pooling = kvast::detail::pooling_of(policy_);
    if (pooling.width <= 1) return {};
    return each_layer([&](const detail::Place& place, int layer) {
      const PoolRanks kernel{.place = place,
                             .turns = scope_.turns + std::ptrdiff_t{layer} * place.most_tables,
                             .pooling = pooling,
                             .votes = memory_.votes,
                             .stride = memory_.stride};
      return launch(kernel, place.most_tables, PoolRanks::kSharedBytes);
    });
  }
  /// Layer by layer, where something is kept of each token: of all at once it would be as large as
  /// a part of the cache.
  template <class Launch>
  Status each_layer(const Launch& launch_one) const {
    Status status;
    for (int layer = 0; layer < scope_.layers; ++layer) {
      const detail::Place place{scope_.place.layers + layer, scope_.place.most_tables};
      status.then([&] { return launch_one(place, layer); });
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
  const Asked<Heads>& asked_;
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
