// SPDX-License-Identifier: Apache-2.0
// The arrays of a cache in device memory, but for its blocks.
#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "kvast/core/rope.h"
#include "kvast/gpu/pool.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Made by the first pass; the arrays of block pointers grow. They go back to the pool when it
/// asks, or with the cache.
template <class DeviceType>
class CacheTables {
 public:
  explicit CacheTables(Pool<DeviceType>& pool) : pool_(pool) {}
  CacheTables(const CacheTables&) = delete;
  CacheTables& operator=(const CacheTables&) = delete;
  ~CacheTables() { release(); }

  Head* heads = nullptr;         ///< of all layers, layer by layer [sequences, heads]
  int* lengths = nullptr;        ///< [sequences]
  int* prompt_ends = nullptr;    ///< [sequences]
  int* unsealed = nullptr;       ///< [sequences] tokens that came since the last pass that sealed
  Turn* turns = nullptr;         ///< [layers, most tables]
  Rows* rows = nullptr;          ///< [sequences]
  int* sealed = nullptr;         ///< [layers, most tables]
  LayerView* views = nullptr;    ///< [layers]
  float* angles = nullptr;       ///< of 32 slots; null: no rotation
  float* frequencies = nullptr;  ///< the rope's, behind the angles
  Counters* counters = nullptr;
  Counters* report = nullptr;  ///< the host's copy

  bool exist() const { return memory_ != nullptr; }
  std::size_t bytes() const { return bytes_ + list_bytes_; }
  int capacity() const { return capacity_; }

  /// All but the arrays of block pointers; fills in what `host_views` says of device memory. Where
  /// it fails nothing is left. `classes` are those of the pool, by the cache's numbering.
  template <class Fill>
  Status make(std::vector<LayerView>& host_views, int most_tables, const Rope& rope,
              const Fill& fill_in) {
    Status status = make_arrays(host_views, most_tables, rope);
    if (status) {
      std::size_t head = 0;
      Turn* next_turns = turns;
      for (LayerView& view : host_views) {
        view.heads = heads + head;
        view.turns = std::exchange(next_turns, next_turns + most_tables);
        view.lengths = lengths;
        view.prompt_ends = prompt_ends;
        view.rows = rows;
        view.counters = counters;
        fill_in(view);
        head += static_cast<std::size_t>(view.tables());
      }
      status.then([&] {
        return DeviceType::copy(views, host_views.data(), host_views.size() * sizeof(LayerView),
                                pool_.stream());
      });
    }
    if (status && angles != nullptr) {
      std::vector<float> host(static_cast<std::size_t>(kBlockTokens * rope.width));
      host.insert(host.end(), rope.inverse_frequencies.begin(), rope.inverse_frequencies.end());
      for (int slot = 0; slot < kBlockTokens; ++slot)
        angles_at(rope, slot, host.data() + slot * rope.width);
      status.then([&] {
        return DeviceType::copy(angles, host.data(), host.size() * sizeof(float), pool_.stream());
      });
    }
    if (!status) release();
    return status;
  }

  /// Room for `blocks` blocks in every head.
  Status widen(int blocks, bool codes) {
    if (blocks <= capacity_) return {};
    const int wanted = std::max({blocks, 2 * capacity_, 8});
    const std::size_t each = static_cast<std::size_t>(heads_) * static_cast<std::size_t>(wanted);
    const std::size_t bytes = each * sizeof(kvast::Block*) * (codes ? 2 : 1);
    void* memory = nullptr;
    if (Status status = pool_.allocate(memory, bytes); !status) return status;
    auto** dense = static_cast<kvast::Block**>(memory);
    const MoveLists kernel{.heads = heads,
                           .dense = dense,
                           .coded = codes ? dense + each : nullptr,
                           .capacity = wanted};
    if (Status status = DeviceType::launch(kernel, {heads_, 0}, pool_.stream()); !status) {
      pool_.release(memory);
      return status;
    }
    if (lists_ != nullptr) pool_.release(lists_);
    lists_ = memory;
    list_bytes_ = bytes;
    capacity_ = wanted;
    return {};
  }

  /// Sequences [first, first + count) have no tokens.
  Status forget(int first, int count) {
    Status status;
    for (int* array : {lengths, prompt_ends, unsealed}) {
      status.then([&] {
        return DeviceType::fill(array + first, 0, static_cast<std::size_t>(count) * sizeof(int),
                                pool_.stream());
      });
    }
    return status;
  }
  /// What the host has of all sequences.
  struct Copy {
    std::vector<int> lengths;
    std::vector<int> prompt_ends;
    std::vector<int> unsealed;
  };
  /// And the report of everything that was sent. Waits for the stream.
  Status read(Copy& host, Counters& now) {
    Status status;
    const auto get = [&](std::vector<int>& to, const int* array) {
      to.resize(static_cast<std::size_t>(sequences_));
      status.then([&] {
        return DeviceType::copy(to.data(), array, to.size() * sizeof(int), pool_.stream());
      });
    };
    get(host.lengths, lengths);
    get(host.prompt_ends, prompt_ends);
    get(host.unsealed, unsealed);
    status.then(
        [&] { return DeviceType::copy(report, counters, sizeof(Counters), pool_.stream()); });
    status.then([&] { return DeviceType::wait(pool_.stream()); });
    if (!status) return status;
    now = *report;  // nothing is under way
    // loaded sequences were in no pass yet, which would have counted them
    now.unsealed = std::accumulate(host.unsealed.begin(), host.unsealed.end(), 0);
    *report = now;
    report->check = now.sum();
    return {};
  }
  /// The newest report, where it is complete: the device writes meanwhile.
  void look_at_report(Counters& newest) const {
    if (report == nullptr) return;
    Counters seen;
    for (std::size_t at = 0; at < sizeof seen / sizeof(int); ++at)
      reinterpret_cast<int*>(&seen)[at] = reinterpret_cast<volatile const int*>(report)[at];
    if (seen.check == seen.sum() && seen.step >= newest.step) newest = seen;
  }

 private:
  Status make_arrays(const std::vector<LayerView>& host_views, int most_tables, const Rope& rope) {
    sequences_ = host_views.front().sequences;
    const auto sequences = static_cast<std::size_t>(sequences_);
    heads_ = 0;
    for (const LayerView& view : host_views) heads_ += view.tables();
    std::size_t end = 0;
    const auto room = [&end](std::size_t bytes) {
      const std::size_t begin = end;
      end += (bytes + 63) / 64 * 64;
      return begin;
    };
    const std::size_t at_heads = room(static_cast<std::size_t>(heads_) * sizeof(Head));
    const std::size_t at_lengths = room(sequences * sizeof(int));
    const std::size_t at_prompt_ends = room(sequences * sizeof(int));
    const std::size_t at_unsealed = room(sequences * sizeof(int));
    const std::size_t at_rows = room(sequences * sizeof(Rows));
    const std::size_t at_turns =
        room(host_views.size() * static_cast<std::size_t>(most_tables) * sizeof(Turn));
    const std::size_t at_sealed =
        room(host_views.size() * static_cast<std::size_t>(most_tables) * sizeof(int));
    const std::size_t at_views = room(host_views.size() * sizeof(LayerView));
    const std::size_t at_counters = room(sizeof(Counters));
    const std::size_t at_angles =
        room(static_cast<std::size_t>(kBlockTokens * rope.width + rope.width / 2) * sizeof(float));
    Status status = pool_.prepare();
    status.then([&] { return pool_.allocate(memory_, end); });
    if (!status) {
      memory_ = nullptr;
      return status;
    }
    bytes_ = end;
    auto* base = static_cast<std::byte*>(memory_);
    heads = reinterpret_cast<Head*>(base + at_heads);
    lengths = reinterpret_cast<int*>(base + at_lengths);
    prompt_ends = reinterpret_cast<int*>(base + at_prompt_ends);
    unsealed = reinterpret_cast<int*>(base + at_unsealed);
    rows = reinterpret_cast<Rows*>(base + at_rows);
    turns = reinterpret_cast<Turn*>(base + at_turns);
    sealed = reinterpret_cast<int*>(base + at_sealed);
    views = reinterpret_cast<LayerView*>(base + at_views);
    counters = reinterpret_cast<Counters*>(base + at_counters);
    if (!rope.empty()) {
      angles = reinterpret_cast<float*>(base + at_angles);
      frequencies = angles + kBlockTokens * rope.width;
    }
    status.then([&] { return DeviceType::fill(memory_, 0, end, pool_.stream()); });
    void* pinned = nullptr;
    status.then([&] { return DeviceType::allocate_host(pinned, sizeof(Counters)); });
    if (status) report = new (pinned) Counters;
    return status;
  }
  void release() {
    if (memory_ != nullptr) pool_.release(memory_);
    if (lists_ != nullptr) pool_.release(lists_);
    if (report != nullptr) DeviceType::release_host(report);
    memory_ = lists_ = nullptr;
    report = nullptr;
    bytes_ = list_bytes_ = 0;
    capacity_ = 0;
  }

  Pool<DeviceType>& pool_;
  void* memory_ = nullptr;
  void* lists_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t list_bytes_ = 0;
  int sequences_ = 0;
  int heads_ = 0;
  int capacity_ = 0;  ///< blocks
};

}  // namespace kvast::gpu
