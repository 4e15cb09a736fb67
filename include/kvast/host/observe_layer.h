// SPDX-License-Identifier: Apache-2.0
// observe, for a whole layer: the old states are kept until the commit, so that a dropped pass
// leaves no trace.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "kvast/host/append.h"
#include "kvast/host/layer.h"
#include "kvast/host/observe.h"

namespace kvast {

/// Queries [tokens, Q, D] at `positions` as rows per head, as they meet keys, multiplied by
/// `scale`: `to` is [heads, group * tokens_total, query_width], and these tokens start at row
/// `first` of each head. `levels`: they arrive unrotated; else null.
inline void pack_queries(const LayerPlan& plan, const View& queries, std::span<const int> positions,
                         const RopeLevels* levels, float scale, int total, int first, float* to) {
  const Shape& shape = plan.shape;
  const int group = shape.group();
  const int width = plan.query_width();
  const int tokens = static_cast<int>(positions.size());
  float numbers[512];
  for (int head = 0; head < shape.heads; ++head) {
    for (int token = 0; token < tokens; ++token) {
      for (int member = 0; member < group; ++member) {
        float* row =
            to +
            ((static_cast<std::ptrdiff_t>(head) * total + first + token) * group + member) * width;
        read_vector(queries, token, head * group + member, shape.head_dim, numbers);
        if (levels != nullptr) levels->rotate(numbers, positions[static_cast<std::size_t>(token)]);
        if (!plan.reconstructs) plan.key_basis.apply(head, numbers);
        for (int at = 0; at < width; ++at) row[at] = numbers[at] * scale;
      }
    }
  }
}

/// The ring after this pass: the last `window` queries of the ring before and of the pass.
inline void roll_ring(const Shape& shape, const QueryRing& before, const View& queries,
                      std::span<const int> positions, float scale, int window, QueryRing& after) {
  const auto row = static_cast<std::size_t>(shape.query_heads * shape.head_dim);
  const int tokens = static_cast<int>(positions.size());
  const int fresh = std::min(tokens, window);
  const int old = std::min(static_cast<int>(before.positions.size()), window - fresh);
  after.queries.resize(static_cast<std::size_t>(old + fresh) * row);
  after.positions.assign(before.positions.end() - old, before.positions.end());
  std::copy_n(
      before.queries.end() - static_cast<std::ptrdiff_t>(static_cast<std::size_t>(old) * row),
      static_cast<std::size_t>(old) * row, after.queries.begin());
  for (int token = tokens - fresh; token < tokens; ++token) {
    after.positions.push_back(positions[static_cast<std::size_t>(token)]);
    for (int head = 0; head < shape.query_heads; ++head) {
      float* to = after.queries.data() + (after.positions.size() - 1) * row +
                  static_cast<std::size_t>(head * shape.head_dim);
      read_vector(queries, token, head, shape.head_dim, to);
      for (int dim = 0; dim < shape.head_dim; ++dim) to[dim] *= scale;
    }
  }
}

/// Side records lie apart from each other: without a hint every one of them is waited for.
inline void prefetch_states(const SideLayout& side, const Head& head, int index, int end) {
  if (index >= end) return;
  const std::byte* states = side.states_of(head.block(index));
  for (std::size_t line = 0; line < kBlockTokens * side.state_bytes; line += 64)
    __builtin_prefetch(states + line, 1);
}

/// Remembers the states of every block, once in a pass, and calls body(head, first_block,
/// end_block), which may change them, for ranges of blocks in parallel. `spare`: memory that no
/// layer uses now.
template <class Body>
void observe_blocks(LayerState& layer, const Executor& executor, int range,
                    std::vector<StatesBefore>& spare, Body&& body) {
  const bool first_time = !layer.observed;
  StatesBefore& before = layer.before;
  if (before.states.empty() && !spare.empty()) {
    before = std::move(spare.back());
    spare.pop_back();
  }
  before.first_block.clear();
  std::size_t blocks = 0;
  int most = 0;
  for (const Head& head : layer.heads) {
    before.first_block.push_back(blocks);
    blocks += static_cast<std::size_t>(head.blocks());
    most = std::max(most, head.blocks());
  }
  const std::size_t bytes = layer.plan.side.state_bytes * kBlockTokens;
  if (before.states.size() < blocks * bytes) before.states.resize(blocks * bytes);
  const int ranges = (most + range - 1) / range;
  executor.parallel_for(static_cast<int>(layer.heads.size()) * ranges, [&](int index) {
    const int head = index / ranges;
    const Head& tokens = layer.heads[static_cast<std::size_t>(head)];
    const int first = index % ranges * range;
    const int end = std::min(tokens.blocks(), first + range);
    if (first >= end) return;
    std::byte* states = before.states.data() + (before.first_block[static_cast<std::size_t>(head)] +
                                                static_cast<std::size_t>(first)) *
                                                   bytes;
    for (int block = first; block < end; ++block, states += bytes) {
      prefetch_states(layer.plan.side, tokens, block + 8, end);
      if (first_time) std::memcpy(states, layer.plan.side.states_of(tokens.block(block)), bytes);
    }
    body(head, first, end);
  });
  layer.observed = true;
}

/// The pass is final: the memory of the old states is free for the next layer.
inline void forget_states(LayerState& layer, std::vector<StatesBefore>& spare) {
  if (!layer.observed) return;
  spare.push_back(std::exchange(layer.before, {}));
  layer.observed = false;
}

/// The pass is dropped: the states are what they were.
inline void restore_states(LayerState& layer, std::vector<StatesBefore>& spare) {
  if (!layer.observed) return;
  const std::size_t bytes = layer.plan.side.state_bytes * kBlockTokens;
  const std::byte* states = layer.before.states.data();
  for (const Head& head : layer.heads) {
    for (int block = 0; block < head.blocks(); ++block, states += bytes)
      std::memcpy(layer.plan.side.states_of(head.block(block)), states, bytes);
  }
  forget_states(layer, spare);
}

/// Weights that the engine's own kernel computed, of one head and a range of blocks.
template <class Arch, class Sink>
void observe_weights(const LayerState& layer, std::span<const int> positions,
                     const Weights& weights, Reduce reduce, int prompt_end, int first_query,
                     int head, int first, int end, Sink&& sink) {
  const int group = layer.plan.shape.group();
  const int count = static_cast<int>(positions.size());
  const Head& tokens = layer.heads[static_cast<std::size_t>(head)];
  const int live = tokens.live();
  alignas(64) float line[kBlockTokens];
  alignas(64) float reduced[kBlockTokens];
  int before = 0;  // slots in earlier blocks
  for (int index = 0; index < first; ++index) before += tokens.block(index).used;
  for (int index = first; index < end; ++index) {
    Block& block = tokens.block(index);
    for (int query = first_query; query < count; ++query) {
      for (int member = 0; member < group; ++member) {
        const float* from = weights.data + query * weights.token_stride +
                            (head * group + member) * weights.head_stride + before;
        std::fill_n(line, kBlockTokens, 0.0F);
        std::copy_n(from, block.used, line);
        reduce_weights<Arch>(reduce, member == 0, group, line, 1.0F, reduced);
      }
      const int position = positions[static_cast<std::size_t>(query)];
      const Attention seen{.visible = live - (count - 1 - query),
                           .step = position,
                           .row = query - first_query,
                           .after = count - 1 - query,
                           .generated = generated(position, prompt_end)};
      sink(block, visible_slots(block, position, 0), reduced, seen);
    }
    before += block.used;
  }
}

}  // namespace kvast
