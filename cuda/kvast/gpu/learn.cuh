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

/// Policies that observe and do nothing else.
template <class Policy, class DeviceType>
class Learner {
 public:
  explicit Learner(Pool<DeviceType>&) {}

  std::size_t bytes() const { return 0; }
  void forget() {}
  int most_blocks() const { return 0; }
  HeadChoices<Policy> choices() const { return {}; }
  Status provide(int, int, int, int) { return {}; }
  /// show(sink, range) launches what shows the pass's weights to a place for weights, as often as
  /// it is asked; without a range those of all queries.
  template <class Show>
  Status learn(const Policy& policy, const Lesson& lesson, const Show& show) const {
    return show(ObserveStates<Policy>{policy, lesson.layer.layout});
  }
};

/// Those that look at each head once more and choose, at its first prompt's end.
template <kvast::detail::Chooses Policy, class DeviceType>
class Learner<Policy, DeviceType> {
 public:
  explicit Learner(Pool<DeviceType>& pool) : made_(pool), profiled_(pool) {}

  std::size_t bytes() const { return made_.bytes() + profiled_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() { profiled_.forget(); }
  /// That heads may have when weights are shown; 0: any.
  int most_blocks() const { return partial_.blocks; }
  HeadChoices<Policy> choices() const { return choices_; }

  /// For lists of `blocks` blocks in all. Choices stay where they are, profiles of blocks are one
  /// layer's, used by all in turn. Where it fails nothing has changed.
  Status provide(int layers, int most_tables, int blocks, int) {
    using Choice = typename Policy::Choice;
    using Profile = typename Policy::Profile;
    const std::size_t heads =
        static_cast<std::size_t>(layers) * static_cast<std::size_t>(most_tables);
    if (Status status = made_.provide(heads * sizeof(Choice)); !status) return status;
    choices_ = {.all = made_.template at<Choice>(0), .most_tables = most_tables};
    if (blocks <= partial_.blocks) return {};
    const std::size_t parts =
        static_cast<std::size_t>(most_tables) * static_cast<std::size_t>(blocks);
    if (Status status = profiled_.provide(parts * sizeof(Profile)); !status) return status;
    partial_ = {.all = profiled_.template at<Profile>(0), .blocks = blocks};
    return {};
  }
  template <class Show>
  Status learn(const Policy& policy, const Lesson& lesson, const Show& show) const {
    const LayerView& layer = lesson.layer;
    Status status = show(ObserveStates<Policy>{policy, layer.layout});
    if (!lesson.ends_prompt) return status;
    const ProfileBlocks<Policy> profiles{layer, policy, partial_};
    status.then([&] {
      return DeviceType::launch(Mark<Policy>{layer, policy},
                                {layer.tables(), Mark<Policy>::kSharedBytes},
                                made_.pool().stream());
    });
    status.then([&] { return show(profiles); });
    status.then([&] {
      return DeviceType::launch(Choose<Policy>{profiles, choices_}, {layer.tables(), 0},
                                made_.pool().stream());
    });
    return status;
  }

 private:
  Scratch<DeviceType> made_;
  HeadChoices<Policy> choices_;
  Scratch<DeviceType> profiled_;
  PartialProfiles<Policy> partial_;
};

/// Those that give weights new values: each query is shown twice.
template <kvast::detail::Weighs Policy, class DeviceType>
class Learner<Policy, DeviceType> {
 public:
  explicit Learner(Pool<DeviceType>& pool) : scratch_(pool) {}

  std::size_t bytes() const { return scratch_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() { scratch_.forget(); }
  /// That heads may have when weights are shown.
  int most_blocks() const { return sums_.blocks; }
  HeadChoices<Policy> choices() const { return {}; }

  /// For lists of `blocks` blocks and passes of `queries` queries, of which so many are looked at
  /// together as 16 MB hold. Where it fails nothing has changed.
  Status provide(int, int most_tables, int blocks, int queries) {
    WeighedSums wanted{.blocks = most_of(blocks, sums_.blocks)};
    const std::int64_t row = most_of<std::int64_t>(std::int64_t{most_tables} * wanted.blocks, 1);
    const std::int64_t together = most_of<std::int64_t>((std::int64_t{1} << 21U) / row, 16);
    wanted.queries = static_cast<int>(least_of<std::int64_t>(together, most_of(queries, 1)));
    const std::int64_t parts = row * wanted.queries;
    Rooms rooms;
    const std::size_t at_parts = rooms.add(parts, sizeof(double));
    const std::size_t at_rows =
        rooms.add(std::int64_t{most_tables} * wanted.queries, sizeof(double));
    if (Status status = scratch_.provide(rooms.bytes()); !status) return status;
    sums_ = wanted;
    sums_.parts = scratch_.template at<double>(at_parts);
    sums_.rows = scratch_.template at<double>(at_rows);
    return {};
  }
  template <class Show>
  Status learn(const Policy& policy, const Lesson& lesson, const Show& show) const {
    const LayerView& layer = lesson.layer;
    const WeighTokens<Policy> weigh{layer, policy};
    WeighedSums sums = sums_;
    const int warps = SumRows::kThreads / kWarp;
    const int tables = layer.tables();
    Status status;
    for (; sums.first < lesson.queries; sums.first += sums.queries) {
      sums.queries = least_of(sums_.queries, lesson.queries - sums.first);
      const QueryRange range{sums.first, sums.first + sums.queries};
      const std::int64_t rows = std::int64_t{tables} * sums.queries;
      status.then([&] {
        return DeviceType::fill(sums.parts, 0,
                                static_cast<std::size_t>(rows * sums.blocks) * sizeof(double),
                                scratch_.pool().stream());
      });
      status.then([&] { return show(SumWeighed<Policy>{weigh, sums}, range); });
      status.then([&] {
        return DeviceType::launch(SumRows{sums, tables},
                                  {static_cast<int>((rows + warps - 1) / warps), 0},
                                  scratch_.pool().stream());
      });
      status.then([&] { return show(ObserveWeighed<Policy>{weigh, sums}, range); });
    }
    return status;
  }

 private:
  Scratch<DeviceType> scratch_;
  WeighedSums sums_;
};

}  // namespace kvast::gpu
