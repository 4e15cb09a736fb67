// SPDX-License-Identifier: Apache-2.0
// learn: what a policy wants to see of a pass, how often, and the memory that takes. As
// host/learn.h.
#pragma once

#include "kvast/gpu/mark.cuh"
#include "kvast/gpu/observe.cuh"
#include "kvast/gpu/scratch.cuh"
#include "kvast/gpu/weigh.cuh"

namespace kvast::gpu {

/// One pass of one layer.
struct Lesson {
  LayerView layer{};
  bool ends_prompt = false;
  int queries = 1;  ///< of the sequence that has most
};

/// What passes of a cache may need.
struct LearnSizes {
  int layers = 1;
  int most_tables = 1;
  int blocks = 0;   ///< of a head's lists in all
  int queries = 1;  ///< of one sequence
};

/// Memory of policies that do more with weights than observe them. Several of a cache share it:
/// choices stand by layer, all else is one layer's and one policy's, used in turn.
template <class DeviceType>
class LearnMemory {
 public:
  explicit LearnMemory(Pool<DeviceType>& pool) : made_(pool), profiled_(pool), weighed_(pool) {}

  std::size_t bytes() const { return made_.bytes() + profiled_.bytes() + weighed_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() {
    profiled_.forget();
    weighed_.forget();
  }
  /// That heads may have when weights are shown; 0: any.
  int most_blocks() const { return most_of(profiled_blocks_, sums_.blocks); }

  template <class Policy>
  HeadChoices<Policy> choices() const {
    if constexpr (kvast::detail::Chooses<Policy>) {
      return {made_.template at<std::byte>(0), layer_bytes_};
    } else {
      return {};
    }
  }
  /// For all that `Policy` asks. Where it fails nothing has changed.
  template <class Policy>
  Status provide(const LearnSizes& sizes) {
    Status status;
    if constexpr (kvast::detail::Chooses<Policy>) {
      status.then([&] {
        return provide_choices(sizes, sizeof(typename Policy::Choice),
                               sizeof(typename Policy::Profile));
      });
    }
    if constexpr (kvast::detail::Weighs<Policy>) status.then([&] { return provide_sums(sizes); });
    return status;
  }
  /// show(sink, range) launches what shows the pass's weights to a place for weights, as often as
  /// it is asked; without a range those of all queries.
  template <class Policy, class Show>
  Status learn(const Policy& policy, const Lesson& lesson, const Show& show) const {
    if constexpr (kvast::detail::Weighs<Policy>) {
      return weigh(policy, lesson, show);
    } else {
      Status status = show(ObserveStates<Policy>{policy, lesson.layer.layout});
      if constexpr (kvast::detail::Chooses<Policy>) {
        if (lesson.ends_prompt) status.then([&] { return choose(policy, lesson, show); });
      }
      return status;
    }
  }

 private:
  /// Choices stay where they are.
  Status provide_choices(const LearnSizes& sizes, std::size_t choice, std::size_t profile) {
    const auto tables = static_cast<std::size_t>(sizes.most_tables);
    const std::size_t layer = most_of((tables * choice + 15) / 16 * 16, layer_bytes());
    if (Status status = made_.provide(layer * static_cast<std::size_t>(sizes.layers)); !status)
      return status;
    layer_bytes_ = static_cast<std::int64_t>(layer);
    const int blocks = most_of(sizes.blocks, profiled_blocks_);
    Status status = profiled_.provide(tables * static_cast<std::size_t>(blocks) * profile);
    if (status) profiled_blocks_ = blocks;
    return status;
  }
  std::size_t layer_bytes() const { return static_cast<std::size_t>(layer_bytes_); }

  /// Each head is looked at once more, at its first prompt's end.
  template <class Policy, class Show>
  Status choose(const Policy& policy, const Lesson& lesson, const Show& show) const {
    const LayerView& layer = lesson.layer;
    const ProfileBlocks<Policy> profiles{
        layer, policy, {profiled_.template at<typename Policy::Profile>(0), profiled_blocks_}};
    const auto stream = made_.pool().stream();
    Status status = DeviceType::launch(Mark<Policy>{layer, policy},
                                       {layer.tables(), Mark<Policy>::kSharedBytes}, stream);
    status.then([&] { return show(profiles); });
    status.then([&] {
      return DeviceType::launch(Choose<Policy>{profiles, choices<Policy>()}, {layer.tables(), 0},
                                stream);
    });
    return status;
  }

  /// So many queries are looked at together as 16 MB hold.
  Status provide_sums(const LearnSizes& sizes) {
    WeighedSums wanted{.blocks = most_of(sizes.blocks, sums_.blocks)};
    const std::int64_t row =
        most_of<std::int64_t>(std::int64_t{sizes.most_tables} * wanted.blocks, 1);
    const std::int64_t together = most_of<std::int64_t>((std::int64_t{1} << 21U) / row, 16);
    wanted.queries = static_cast<int>(least_of<std::int64_t>(together, most_of(sizes.queries, 1)));
    const std::int64_t parts = row * wanted.queries;
    Rooms rooms;
    const std::size_t at_parts = rooms.add(parts, sizeof(double));
    const std::size_t at_rows =
        rooms.add(std::int64_t{sizes.most_tables} * wanted.queries, sizeof(double));
    if (Status status = weighed_.provide(rooms.bytes()); !status) return status;
    sums_ = wanted;
    sums_.parts = weighed_.template at<double>(at_parts);
    sums_.rows = weighed_.template at<double>(at_rows);
    return {};
  }
  /// Weights get new values: each query is shown twice.
  template <class Policy, class Show>
  Status weigh(const Policy& policy, const Lesson& lesson, const Show& show) const {
    const LayerView& layer = lesson.layer;
    const WeighTokens<Policy> weigh{layer, policy};
    WeighedSums sums = sums_;
    const int warps = SumRows::kThreads / kWarp;
    const int tables = layer.tables();
    const auto stream = weighed_.pool().stream();
    Status status;
    for (; sums.first < lesson.queries; sums.first += sums.queries) {
      sums.queries = least_of(sums_.queries, lesson.queries - sums.first);
      const QueryRange range{sums.first, sums.first + sums.queries};
      const std::int64_t rows = std::int64_t{tables} * sums.queries;
      status.then([&] {
        return DeviceType::fill(
            sums.parts, 0, static_cast<std::size_t>(rows * sums.blocks) * sizeof(double), stream);
      });
      status.then([&] { return show(SumWeighed<Policy>{weigh, sums}, range); });
      status.then([&] {
        return DeviceType::launch(SumRows{sums, tables},
                                  {static_cast<int>((rows + warps - 1) / warps), 0}, stream);
      });
      status.then([&] { return show(ObserveWeighed<Policy>{weigh, sums}, range); });
    }
    return status;
  }

  Scratch<DeviceType> made_;
  std::int64_t layer_bytes_ = 0;
  Scratch<DeviceType> profiled_;
  int profiled_blocks_ = 0;
  Scratch<DeviceType> weighed_;
  WeighedSums sums_;
};

}  // namespace kvast::gpu
