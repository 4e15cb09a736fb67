// SPDX-License-Identifier: Apache-2.0
// The host's side of attend: which kernel, how its work is split, and the memory that takes.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "kvast/gpu/attend.cuh"
#include "kvast/gpu/attend_merge.cuh"
#include "kvast/gpu/scratch.cuh"

namespace kvast::gpu {

/// Features that a head's keys or values may have for attention on the device.
inline constexpr int kMostAttendDim = 256;

/// Throws Error for options that mean nothing.
inline void check_options(const AttendOptions& options, Caller caller) {
  require(std::isfinite(options.scale), caller, "attend: scale is ", options.scale,
          ", must be finite");
  require(std::isfinite(options.softcap) && options.softcap >= 0.0F, caller, "attend: softcap is ",
          options.softcap, ", must be finite and at least 0");
  require(options.window >= 0, caller, "attend: window is ", options.window,
          ", must be at least 0");
  require(options.bias.head_stride >= 0 && options.bias.sequence_stride >= 0, caller,
          "attend: strides of the bias must be at least 0");
}

/// How the rows of a pass and the blocks of its heads become units of work.
struct AttendSplit {
  int tiles = 1;  ///< of the rows of the head that has most
  SplitRules rules{};
  std::int64_t items = 0;   ///< at most
  std::int64_t stored = 0;  ///< units whose results may have to be merged, at most

  /// `rules.workers`: thread blocks that run at the same time. Where tiles of rows are work enough,
  /// ranges are not split: each result would be written, read and merged once more.
  static AttendSplit of(int tables, int rows, int tile_rows, SplitRules rules) {
    const int workers = rules.workers;
    AttendSplit made{.tiles = most_of((rows + tile_rows - 1) / tile_rows, 1)};
    const bool splits = made.tiles == 1 || std::int64_t{tables} * made.tiles < workers;
    made.rules = rules;
    made.rules.workers = splits ? most_of(workers / made.tiles, 1) : 1;
    if (!splits) made.rules.least_blocks = 1 << 30;
    made.items = most_items(tables, made.rules);
    made.stored = splits ? made.items * made.tiles : 0;
    return made;
  }
};

/// Attention of one cache, on its pool's stream. All layers share its scratch memory, which grows
/// with shapes and queries, not with lengths.
template <class Kept, class DeviceType>
class AttendRunner {
 public:
  explicit AttendRunner(Pool<DeviceType>& pool) : scratch_(pool) {}

  std::size_t bytes() const { return scratch_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() { scratch_.forget(); }

  /// Fills in what `call` lacks: plan, tiles and scratch. `most_queries`: of any sequence. Payload
  /// must be of Kept, dense rows of a multiple of 16 bytes.
  Status run(AttendCall& call, int most_queries) {
    started_ = false;
    return for_width(call.layer, [&](auto width) {
      return run_wide<decltype(width)::value>(call, most_queries);
    });
  }
  /// body(std::integral_constant) with the width of the kernel that the layer's heads have.
  template <class Body>
  static Status for_width(const LayerView& layer, const Body& body) {
    return first_as_wide(most_of(layer.head_dim, layer.value_dim),
                         typename detail::WidthsOf<DeviceType>::Type{}, body);
  }
  /// Whether kernels of the last run may have run, although it failed. They have not where memory
  /// was missing.
  bool started() const { return started_; }

  /// Makes `grid` one of all thread blocks that run at the same time. Each kernel is asked about
  /// once: the answer takes the driver about as long as a launch.
  template <class Kernel>
  Status fill_device(Grid& grid) {
    const auto known = std::find_if(known_.begin(), known_.end(), [&](const Known& entry) {
      return entry.kernel == &kTag<Kernel> && entry.shared_bytes == grid.shared_bytes;
    });
    if (known != known_.end()) {
      grid.blocks = known->workers;
      return {};
    }
    grid.blocks = DeviceType::template together<Kernel>(grid);
    if (grid.blocks < 1) {
      return {StatusCode::device_failed,
              kvast::detail::join_text(
                  "attend: the device runs no thread block with ", grid.shared_bytes,
                  " bytes of shared memory: it has less, or could not load the kernel")};
    }
    known_.push_back({&kTag<Kernel>, grid.shared_bytes, grid.blocks});
    return {};
  }

 private:
  template <class Body, int kWidth, int... kWider>
  static Status first_as_wide(int widest, std::integer_sequence<int, kWidth, kWider...>,
                              const Body& body) {
    static_assert(kWidth == 64 || kWidth == 96 || kWidth == 128 || kWidth == 256);
    if (widest <= kWidth) return body(std::integral_constant<int, kWidth>{});
    if constexpr (sizeof...(kWider) > 0) {
      return first_as_wide(widest, std::integer_sequence<int, kWider...>{}, body);
    } else {
      return {
          StatusCode::device_failed,
          kvast::detail::join_text("attend: heads have ", widest,
                                   " features, this program's kernels are for at most ", kWidth)};
    }
  }

  template <int kDim>
  Status run_wide(AttendCall& call, int most_queries) {
    // Tensor cores take 16 rows in the time of 8 where bytes bound; more would need registers that
    // there are not. Turned queries are many copies: 8 rows of them are enough.
    if constexpr (!std::is_same_v<Kept, F32>) {
      if (most_queries * call.group > kTileRows && call.rope.frequencies == nullptr)
        return run_kernel<Attend<Kept, kDim, 16>, 16>(call, most_queries);
    }
    return run_kernel<Attend<Kept, kDim, 8>, 8>(call, most_queries);
  }

  template <class Kernel, int kRows>
  Status run_kernel(AttendCall& call, int most_queries) {
    const bool turns = call.rope.frequencies != nullptr;
    const int tables = call.layer.tables();
    Grid grid{1, Kernel::Shape::shared_bytes(turns)};
    if (Status status = fill_device<Kernel>(grid); !status) return status;
    const LayerView& layer = call.layer;
    const AttendSplit split = AttendSplit::of(
        tables, most_queries * call.group, kRows,
        rules_of_bytes(grid.blocks, layer.coded_keys.bytes + layer.coded_values.bytes,
                       layer.dense_keys.bytes + layer.dense_values.bytes));
    call.tiles = split.tiles;
    call.dense_cost = split.rules.dense_cost;
    if (Status status = provide(call, split, kRows); !status) return status;
    started_ = true;
    const auto stream = scratch_.pool().stream();
    const Plan plan{.layer = call.layer,
                    .plan = call.plan,
                    .rules = split.rules,
                    .most_blocks = call.most_blocks};
    Status status = DeviceType::launch(plan, {1, Plan::kSharedBytes}, stream);
    status.then([&] { return DeviceType::launch(Kernel{call}, grid, stream); });
    if (split.stored == 0) return status;
    status.then([&] {
      return DeviceType::launch(MergeParts{call, kRows}, {tables * most_queries * call.group, 0},
                                stream);
    });
    return status;
  }

  Status provide(AttendCall& call, const AttendSplit& split, int tile_rows) {
    Rooms rooms;
    const std::size_t items = rooms.add(split.items, sizeof(WorkItem));
    const std::size_t heads = rooms.add(call.layer.tables(), sizeof(HeadItems));
    const std::size_t count = rooms.add(1, sizeof(int));
    const std::int64_t rows = split.stored * tile_rows;
    const std::size_t maxima = rooms.add(rows, sizeof(float));
    const std::size_t sums = rooms.add(rows, sizeof(float));
    const std::size_t outputs = rooms.add(rows * call.layer.value_dim, sizeof(float));
    if (Status status = scratch_.provide(rooms.bytes()); !status) return status;
    call.plan = {.items = scratch_.template at<WorkItem>(items),
                 .heads = scratch_.template at<HeadItems>(heads),
                 .count = scratch_.template at<int>(count)};
    call.partials = {.outputs = scratch_.template at<float>(outputs),
                     .maxima = scratch_.template at<float>(maxima),
                     .sums = scratch_.template at<float>(sums)};
    return {};
  }

  template <class Kernel>
  static constexpr char kTag = 0;  // its address is the kernel's name
  struct Known {
    const char* kernel = nullptr;
    std::size_t shared_bytes = 0;
    int workers = 0;
  };

  Scratch<DeviceType> scratch_;
  std::vector<Known> known_;
  bool started_ = false;
};

}  // namespace kvast::gpu
