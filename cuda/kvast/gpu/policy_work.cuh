// SPDX-License-Identifier: Apache-2.0
// What a cache does for its policy: memory for it, what it is shown of a pass, what it lets go.
#pragma once

#include <algorithm>
#include <optional>

#include "kvast/gpu/cache_memory.cuh"
#include "kvast/gpu/cache_options.h"
#include "kvast/gpu/learn.cuh"
#include "kvast/gpu/observe_run.cuh"
#include "kvast/gpu/policy_parts.cuh"

namespace kvast::gpu {

/// The policy of one cache and its memory. `kAttends`: attention of the cache's own reads its
/// blocks.
template <class Policy, bool kAttends, class DeviceType>
class PolicyWork {
 public:
  PolicyWork(const Policy& policy, CacheMemory<DeviceType>& memory, std::optional<Reduce> reduce)
      : parts_(policy),
        memory_(memory),
        observed_(memory.pool()),
        learned_(memory.pool()),
        evicted_(memory.pool()),
        reduce_(reduce) {}

  static constexpr bool kEvicts = kvast::detail::evicts<Policy>();
  static constexpr bool kObserves = kEvicts && Policy::needs.attention;

  const PolicyParts<Policy>& parts() const { return parts_; }
  const ObserveMemory<DeviceType>& observed() const { return observed_; }
  const LearnMemory<DeviceType>& learned() const { return learned_; }
  /// Of a record of blocks, in the layer that has most.
  std::size_t side_bytes() const { return side_bytes_; }
  std::size_t bytes() const { return observed_.bytes() + learned_.bytes() + evicted_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() {
    observed_.forget();
    learned_.forget();
    evicted_.forget();
  }

  /// Throws Error for what the policy cannot do in a layer.
  void add_layer(const ShapeList& shapes, int layer, int sequences, Caller caller) {
    const Shape& shape = shapes[layer];
    parts_.add_layer(shapes, layer, caller);
    observed_.add_layer(sequences * shape.heads, shape.group(), shape.query_heads);
  }
  /// What follows a layer's blocks for its policy. Whether it ever evicts there.
  bool fill_in(LayerView& view) {
    bool evicts = false;
    parts_.of_layer(view.layer, [&](const auto& mine) {
      using Mine = std::remove_cvref_t<decltype(mine)>;
      evicts = kvast::detail::evicts<Mine>();
      view.layout = SideLayout::of<typename Mine::State>(Mine::needs);
      kvast::detail::each_part(mine, [&](const auto& part, const auto&) {
        using One = std::remove_cvref_t<decltype(part)>;
        if (kvast::detail::evicts<One>() && kWritesRanks<One>)
          view.ranks_at = (static_cast<std::int64_t>(view.layout.bytes) + 15) / 16 * 16;
      });
    });
    side_bytes_ = std::max(side_bytes_, view.layout.bytes);
    return evicts;
  }

  /// What the policy looks at of a prompt must come in the pass that ends it.
  void check_prompts(const PassOptions& options, Caller caller) const {
    for (int sequence = 0; sequence < memory_.sequences(); ++sequence) {
      const int count = options.tokens_of(sequence);
      if (count == 0) continue;
      const int length = memory_.length(sequence);
      require(!Policy::needs.whole_prompt || length == 0 || memory_.prompted(sequence), caller,
              "begin: last_of_prompt is set after ", length, " tokens of no prompt in sequence ",
              sequence, ", and ", kvast::detail::type_name<Policy>,
              " needs the whole prompt in one pass");
      parts_.each([&](const auto& part, const auto&) {
        using One = std::remove_cvref_t<decltype(part)>;
        const int window = kvast::detail::replays<One>() ? kvast::detail::window_of(part) : 0;
        require(count >= window || !memory_.mid_prompt(sequence), caller, "begin: the last chunk ",
                "of sequence ", sequence, "'s prompt has ", count, " tokens, and ",
                kvast::detail::policy_name<One>(), " looks at the newest ", window,
                ": on the device they must be in one chunk");
      });
    }
  }
  /// Memory for passes of `rows` queries, `most_rows` of one sequence.
  Status provide(int rows, int most_rows) {
    const LearnSizes sizes{.layers = memory_.layers(),
                           .most_tables = memory_.most_tables(),
                           .blocks = 2 * memory_.list_capacity(),  // of both lists
                           .queries = most_rows};
    Status status;
    if (kObserves && kAttends)
      status.then([&] { return observed_.provide(rows, most_rows, sizes.blocks); });
    parts_.each([&](const auto& part, const auto&) {
      using One = std::remove_cvref_t<decltype(part)>;
      if constexpr (detail::watches<One>())
        status.then([&] { return learned_.template provide<One>(sizes); });
      const bool looks_at_all = kvast::detail::pooling_of(part).width > 1 ||
                                kvast::detail::allocates<One>() || kvast::detail::RanksByHead<One>;
      if (kvast::detail::evicts<One>() && looks_at_all)
        status.then([&] {
          return evicted_.provide(sizes.most_tables, std::int64_t{sizes.blocks} * kBlockTokens,
                                  std::int64_t{sizes.layers} * sizes.most_tables);
        });
    });
    return status;
  }

  /// Whether somebody wants to see the open pass's weights in a layer.
  bool is_watched(int layer) const { return kObserves && parts_.is_watched(layer, phase()); }
  /// Shows them to each part that does: show(rules, sink) brings the weights of its queries.
  template <class Show>
  Status learn(int layer, const Show& show) const {
    const Lesson lesson{memory_.view(layer), memory_.ends_prompt(), memory_.most_rows()};
    Status status;
    parts_.each_watching(layer, phase(), [&](const auto& part, const HeadMask& heads) {
      WeightRules rules{.reduce = reduce_.value_or(kvast::detail::reduce_of(part)),
                        .newest = std::max(kvast::detail::window_of(part), 0),
                        .queries = memory_.most_rows(),
                        .heads = heads};
      if (!memory_.in_prompt()) rules.prompt_ends = memory_.view(0).prompt_ends;
      status.then([&] {
        return learned_.learn(part, lesson, [&](const auto& sink, QueryRange range = {}) {
          rules.range = range;
          return show(rules, sink);
        });
      });
    });
    return status;
  }
  /// Lets each part that acts in the scope's layers, from `first` on, drop tokens. `acts` says
  /// whether there is one.
  Status evict(const CommitScope& scope, int first, bool& acts) const {
    Status status;
    parts_.each_acting(first, scope.layers, phase(),
                       [&](const auto& part, const auto& asked, int from, int count) {
                         using One = std::remove_cvref_t<decltype(part)>;
                         using Heads = std::remove_cvref_t<decltype(asked.heads)>;
                         const CommitScope mine = scope.part(from - first, count);
                         acts = true;
                         status.then([&] {
                           return Evict<One, Heads, DeviceType>(part, asked, evicted_,
                                                                learned_.template choices<One>(),
                                                                mine, memory_.pool().stream())
                               .run();
                         });
                       });
    return status;
  }

 private:
  PassPhase phase() const { return {memory_.in_prompt(), memory_.ends_prompt()}; }

  PolicyParts<Policy> parts_;
  CacheMemory<DeviceType>& memory_;
  ObserveMemory<DeviceType> observed_;
  LearnMemory<DeviceType> learned_;
  EvictMemory<DeviceType> evicted_;
  std::optional<Reduce> reduce_;  ///< in place of the policy's own
  std::size_t side_bytes_ = 0;
};

}  // namespace kvast::gpu
