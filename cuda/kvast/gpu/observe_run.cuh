// SPDX-License-Identifier: Apache-2.0
// The host's side of observe: memory for what attention keeps for policies.
#pragma once

#include <limits>

#include "kvast/gpu/attend_run.cuh"
#include "kvast/gpu/observe.cuh"

namespace kvast::gpu {

/// Log-sum-exps, the saved softmax of decode steps and counts of visible tokens: one layer's, used
/// by all in turn. Grows with lengths, between passes: a captured pass stays valid while lists have
/// no more room than they had (see Plan::most_blocks).
template <class DeviceType>
class ObserveMemory {
 public:
  explicit ObserveMemory(Pool<DeviceType>& pool) : scratch_(pool) {}

  std::size_t bytes() const { return scratch_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() { scratch_.forget(); }

  /// A layer's kv heads of all sequences, and the query heads of each.
  void add_layer(int tables, int group, int query_heads) {
    tables_ = most_of(tables_, tables);
    query_heads_ = most_of(query_heads_, query_heads);
    members_ = most_of(members_, members_of(group));
  }
  /// For passes of `rows` queries, `most_rows` of one sequence, over lists of `blocks` blocks in
  /// all. Where it fails nothing has changed.
  Status provide(std::int64_t rows, int most_rows, int blocks) {
    const Layout wanted{.rows = most_of(rows, layout_.rows),
                        .queries = most_of(std::int64_t{tables_} * most_rows, layout_.queries),
                        .blocks = most_of(blocks, layout_.blocks)};
    const std::int64_t lines = std::int64_t{tables_} * wanted.blocks * members_;
    Rooms rooms;
    const std::size_t at_sums = rooms.add(wanted.rows * query_heads_, sizeof(float));
    const std::size_t at_visible = rooms.add(wanted.queries, sizeof(int));
    const std::size_t at_maxima = rooms.add(lines, sizeof(float));
    const std::size_t at_below = rooms.add(lines * kBlockTokens, sizeof(std::uint16_t));
    if (Status status = scratch_.provide(rooms.bytes()); !status) return status;
    layout_ = wanted;
    log_sum_exp_ = scratch_.template at<float>(at_sums);
    visible_ = scratch_.template at<int>(at_visible);
    saved_ = {.below = scratch_.template at<std::uint16_t>(at_below),
              .maxima = scratch_.template at<float>(at_maxima),
              .blocks = wanted.blocks};
    return {};
  }

  /// Makes attend keep what show() needs; a pass of one query per sequence keeps its softmax.
  void fill_in(AttendCall& call, int most_rows) const {
    if (call.options.log_sum_exp == nullptr) call.options.log_sum_exp = log_sum_exp_;
    call.most_blocks = layout_.blocks;
    if (most_rows > 1) return;
    call.saved = saved_;
    call.saved.members = members_of(call.group);
  }
  int* visible() const { return visible_; }

 private:
  struct Layout {
    std::int64_t rows = 0;
    std::int64_t queries = 0;
    int blocks = 0;
  };
  static int members_of(int group) { return (group + 1) / 2 * 2; }

  Scratch<DeviceType> scratch_;
  int tables_ = 1;
  int query_heads_ = 1;
  int members_ = 2;
  Layout layout_;
  float* log_sum_exp_ = nullptr;
  int* visible_ = nullptr;
  SavedLogits saved_;
};

/// After `call` was run: `sink` is shown the weights of its queries.
template <class Kept, class Sink, class DeviceType>
Status show_weights(AttendRunner<Kept, DeviceType>& runner, const AttendCall& call,
                    WeightRules rules, const Sink& sink, int* visible,
                    typename DeviceType::Stream stream) {
  if (call.options.window > 0) {
    rules.visible = visible;
    const std::int64_t all = std::int64_t{call.layer.tables()} * rules.queries;
    if (all > std::numeric_limits<int>::max())
      return {StatusCode::device_failed, "attend: a window over more than 2^31 - 1 rows of heads"};
    const Grid lines{static_cast<int>(all), CountVisible::kSharedBytes};
    if (Status status =
            DeviceType::launch(CountVisible{call, visible, rules.queries}, lines, stream);
        !status)
      return status;
  }
  if (call.saved.below != nullptr) {
    using Kernel = SavedWeights<Sink>;
    Grid grid{1, 0};
    if (Status status = runner.template fill_device<Kernel>(grid); !status) return status;
    return DeviceType::launch(Kernel{call, rules, sink}, grid, stream);
  }
  return runner.for_width(call.layer, [&](auto width) {
    using Kernel = AgainWeights<Kept, decltype(width)::value, Sink>;
    Grid grid{1, Kernel::Shape::shared_bytes(call.rope.frequencies != nullptr)};
    if (Status status = runner.template fill_device<Kernel>(grid); !status) return status;
    return DeviceType::launch(Kernel{call, rules, sink}, grid, stream);
  });
}

}  // namespace kvast::gpu
