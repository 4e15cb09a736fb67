// SPDX-License-Identifier: Apache-2.0
// learn: what a policy wants to see of a pass, how often, and the memory that takes. As
// host/learn.h.
#pragma once

#include "kvast/gpu/mark.cuh"
#include "kvast/gpu/observe.cuh"
#include "kvast/gpu/pool.cuh"
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
  explicit Learner(Pool<DeviceType>& pool) : pool_(pool) {}
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;
  ~Learner() {
    if (partial_.all != nullptr) pool_.release(partial_.all);
    if (choices_.all != nullptr) pool_.release(choices_.all);
  }

  std::size_t bytes() const { return choice_bytes_ + partial_bytes_; }
  HeadChoices<Policy> choices() const { return choices_; }

  /// For lists of `blocks` blocks in all. Choices stay where they are, profiles of blocks are one
  /// layer's, used by all in turn. Where it fails nothing has changed.
  Status provide(int layers, int most_tables, int blocks, int) {
    if (choices_.all == nullptr) {
      choices_.most_tables = most_tables;
      const std::int64_t heads = std::int64_t{layers} * most_tables;
      if (Status status = allocate(choices_.all, heads, choice_bytes_); !status) return status;
    }
    if (blocks <= partial_.blocks) return {};
    typename Policy::Profile* wider = nullptr;
    const std::int64_t parts = std::int64_t{most_tables} * blocks;
    if (Status status = allocate(wider, parts, partial_bytes_); !status) return status;
    if (partial_.all != nullptr) pool_.release(partial_.all);
    partial_ = {.all = wider, .blocks = blocks};
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
                                {layer.tables(), Mark<Policy>::kSharedBytes}, pool_.stream());
    });
    status.then([&] { return show(profiles); });
    status.then([&] {
      return DeviceType::launch(Choose<Policy>{profiles, choices_}, {layer.tables(), 0},
                                pool_.stream());
    });
    return status;
  }

 private:
  template <class Value>
  Status allocate(Value*& to, std::int64_t count, std::size_t& bytes) {
    const std::size_t wanted = static_cast<std::size_t>(count) * sizeof(Value);
    void* memory = nullptr;
    if (Status status = pool_.allocate(memory, wanted); !status) return status;
    to = static_cast<Value*>(memory);
    bytes = wanted;
    return {};
  }

  Pool<DeviceType>& pool_;
  HeadChoices<Policy> choices_;
  std::size_t choice_bytes_ = 0;
  PartialProfiles<Policy> partial_;
  std::size_t partial_bytes_ = 0;
};

/// Those that give weights new values: each query is shown twice.
template <kvast::detail::Weighs Policy, class DeviceType>
class Learner<Policy, DeviceType> {
 public:
  explicit Learner(Pool<DeviceType>& pool) : pool_(pool) {}
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;
  ~Learner() {
    if (memory_ != nullptr) pool_.release(memory_);
  }

  std::size_t bytes() const { return static_cast<std::size_t>(numbers()) * sizeof(double); }
  HeadChoices<Policy> choices() const { return {}; }

  /// For lists of `blocks` blocks and passes of `queries` queries, of which so many are looked at
  /// together as 16 MB hold. Where it fails nothing has changed.
  Status provide(int, int most_tables, int blocks, int queries) {
    WeighedSums wanted{.queries = most_of(queries, 1), .blocks = most_of(blocks, sums_.blocks)};
    const std::int64_t row = std::int64_t{most_tables} * wanted.blocks;
    const std::int64_t together = most_of<std::int64_t>((std::int64_t{1} << 21U) / row, 16);
    wanted.queries =
        most_of(static_cast<int>(least_of<std::int64_t>(together, wanted.queries)), sums_.queries);
    if (memory_ != nullptr && wanted.queries == sums_.queries && wanted.blocks == sums_.blocks)
      return {};
    const std::int64_t parts = row * wanted.queries;
    const std::int64_t all = parts + std::int64_t{most_tables} * wanted.queries;
    void* memory = nullptr;
    if (Status status = pool_.allocate(memory, static_cast<std::size_t>(all) * sizeof(double));
        !status)
      return status;
    if (memory_ != nullptr) pool_.release(memory_);
    memory_ = memory;
    tables_ = most_tables;
    sums_ = wanted;
    sums_.parts = static_cast<double*>(memory);
    sums_.rows = sums_.parts + parts;
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
      const QueryRange range{sums.first, sums.first + sums.queries};
      const std::int64_t rows = std::int64_t{tables} * sums.queries;
      status.then([&] {
        return DeviceType::fill(sums.parts, 0,
                                static_cast<std::size_t>(rows * sums.blocks) * sizeof(double),
                                pool_.stream());
      });
      status.then([&] { return show(SumWeighed<Policy>{weigh, sums}, range); });
      status.then([&] {
        return DeviceType::launch(SumRows{sums, tables},
                                  {static_cast<int>((rows + warps - 1) / warps), 0},
                                  pool_.stream());
      });
      status.then([&] { return show(ObserveWeighed<Policy>{weigh, sums}, range); });
    }
    return status;
  }

 private:
  std::int64_t numbers() const {
    return memory_ == nullptr ? 0 : std::int64_t{tables_} * sums_.queries * (sums_.blocks + 1);
  }

  Pool<DeviceType>& pool_;
  void* memory_ = nullptr;
  int tables_ = 0;
  WeighedSums sums_;
};

}  // namespace kvast::gpu
