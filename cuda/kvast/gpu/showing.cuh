// SPDX-License-Identifier: Apache-2.0
// How a block's weights come to a place for weights (attend_weights.cuh): query by query, and then
// an end.
#pragma once

#include <concepts>
#include <type_traits>

#include "kvast/core/block.h"
#include "kvast/gpu/warp.cuh"

namespace kvast::gpu {

/// A place that gathers something over the queries that a lane shows of a block, in registers. Then
/// it is called with that first, and finish(warp, gathered, table, index) once per block, also
/// where nobody sees it. Heads that it does not want are not shown.
template <class Sink>
concept Gathers = requires(const Sink sink, int table) {
  typename Sink::Gathered;
  { sink.wants(table) } -> std::same_as<bool>;
};

/// Held by a warp from the first query of a block to the last.
template <class Sink>
class Showing {
 public:
  KVAST_HD explicit Showing(const Sink& sink) : sink_(sink) {}

  KVAST_HD static bool wants(const Sink& sink, int table) {
    if constexpr (Gathers<Sink>) return sink.wants(table);
    return true;
  }
  /// A place that sums over the lanes is called with the warp first.
  template <class Warp>
  KVAST_HD void operator()(const Warp& warp, kvast::Block& block, int table, int index, int query,
                           int slot, bool sees, const Attention& seen) {
    if constexpr (requires { sink_(warp, block, table, index, query, slot, sees, seen); }) {
      sink_(warp, block, table, index, query, slot, sees, seen);
    } else if constexpr (Gathers<Sink>) {
      sink_(gathered_, block, table, index, query, slot, sees, seen);
    } else {
      sink_(block, table, index, query, slot, sees, seen);
    }
  }
  template <class Warp>
  KVAST_HD void finish(const Warp& warp, int table, int index) const {
    if constexpr (Gathers<Sink>) sink_.finish(warp, gathered_, table, index);
  }

 private:
  template <class Place>
  struct Nothing {
    using Gathered = Nothing;
  };
  using Gathered = typename std::conditional_t<Gathers<Sink>, Sink, Nothing<Sink>>::Gathered;

  const Sink& sink_;
  Gathered gathered_{};
};

}  // namespace kvast::gpu
