// SPDX-License-Identifier: Apache-2.0
// observe: a policy's states learn what the queries of a pass attended to.
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/host/attend.h"

namespace kvast {

/// Joins one query head's weights into the group's: `first` for the first of `group` heads.
template <class Simd>
void reduce_weights(Reduce reduce, bool first, int group, const float* weights, float factor,
                    float* reduced) {
  using F = typename Simd::F;
  const F scale = Simd::set1(reduce == Reduce::mean ? factor / static_cast<float>(group) : factor);
  for (int at = 0; at < kBlockTokens; at += Simd::kLanes) {
    const F here = Simd::mul(Simd::load(weights + at), scale);
    const F before = first ? Simd::zero() : Simd::load(reduced + at);
    Simd::store(reduced + at,
                reduce == Reduce::max ? Simd::max_or_nan(before, here) : Simd::add(before, here));
  }
}

/// The states of a block's 32 slots.
template <class Policy>
typename Policy::State* states_of(const SideLayout& side, Block& block) {
  return reinterpret_cast<typename Policy::State*>(side.states_of(block));
}

/// One block's states see one query. `visible`: slots whose weights count.
template <class Policy>
void observe_block(const Policy& policy, typename Policy::State* states, std::uint32_t visible,
                   const float* weights, Attention seen) {
  if (visible == kAllLive) {
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      seen.weight = weights[slot];
      policy.observe(states[slot], seen);
    }
    return;
  }
  for (; visible != 0; visible &= visible - 1U) {
    const int slot = std::countr_zero(visible);
    seen.weight = weights[slot];
    policy.observe(states[slot], seen);
  }
}

/// Attention::generated of a query.
inline int generated(int position, int prompt_end) {
  return std::max(0, position - prompt_end + 1);
}

/// What observing one head of a layer needs besides the states.
struct Observation {
  const HeadSight* sight = nullptr;
  const float* lse = nullptr;    ///< [query_heads, count]
  std::span<const int> visible;  ///< [count] tokens each query saw
  int first_query = 0;           ///< earlier queries are not observed
  Reduce reduce = Reduce::mean;
  int prompt_end = 0;  ///< positions from here on are generated
};

/// Where weights go: called with a block, the slots of tokens that are not newer than one query,
/// [32] weights reduced over the group (0 where a sliding window hides a token; those of other
/// slots mean nothing), and the query. This one shows them to the policy.
template <class Policy>
auto observing(const Policy& policy, const SideLayout& side) {
  return [&policy, &side](Block& block, std::uint32_t visible, const float* weights,
                          const Attention& seen) {
    observe_block(policy, states_of<Policy>(side, block), visible, weights, seen);
  };
}

/// A decode step: attend kept exp(logit - maximum so far) of every block, so a weight costs one
/// multiplication.
template <class Simd, class Sink>
void observe_saved(const Observation& seen, AttendWork& work, int first_block, int end_block,
                   Sink&& sink) {
  const HeadSight& sight = *seen.sight;
  const int group = sight.group();
  const std::size_t first_saved = work.first_saved[static_cast<std::size_t>(sight.head_index)];
  const int blocks = sight.head->blocks();
  const std::size_t first_row = first_saved * static_cast<std::size_t>(group);
  const float* maxima = work.saved_max.data() + first_row;
  float* factors = work.saved_factors.data() + first_row;
  for (int row = 0; row < group; ++row) {
    const float lse = seen.lse[sight.head_index * group + row];
    float last_maximum = std::numeric_limits<float>::infinity();
    float last_factor = 0.0F;
    for (int index = first_block; index < end_block; ++index) {
      const float maximum = maxima[row * blocks + index];
      if (maximum != last_maximum) {  // neighbours mostly share their maximum
        last_maximum = maximum;
        last_factor = std::exp(std::max(maximum - lse, -87.0F));
      }
      factors[row * blocks + index] = last_factor;
    }
  }
  alignas(64) float weights[kBlockTokens];
  const Attention attention{.visible = seen.visible[0],
                            .step = sight.positions[0],
                            .generated = generated(sight.positions[0], seen.prompt_end)};
  for (int index = first_block; index < end_block; ++index) {
    const float* saved = work.saved.data() + (first_saved + static_cast<std::size_t>(index)) *
                                                 static_cast<std::size_t>(group * kBlockTokens);
    for (int row = 0; row < group; ++row) {
      reduce_weights<Simd>(seen.reduce, row == 0, group, saved + row * kBlockTokens,
                           factors[row * blocks + index], weights);
    }
    Block& block = sight.head->block(index);
    sink(block, block.live, weights, attention);
  }
}

/// Several queries: the second pass. Logits are computed again and become weights by the rows'
/// log-sum-exp, so no [T, T] matrix exists. Queries come in order, as a decoder would have shown
/// them.
template <class Simd, class Sink>
void observe_again(const Observation& seen, int first_block, int end_block, Sink&& sink) {
  using F = typename Simd::F;
  const HeadSight& sight = *seen.sight;
  const int group = sight.group();
  const int count = static_cast<int>(sight.positions.size());
  const int together = std::max(1, kRowTile / group);  // queries
  alignas(64) float scores[kRowTile * kBlockTokens];
  alignas(64) float weights[kRowTile * kBlockTokens];
  std::uint32_t masks[kRowTile];
  for (int index = first_block; index < end_block; ++index) {
    Block& block = sight.head->block(index);
    int oldest = block.position[0];
    for (int slot = 0; slot < block.used; ++slot) oldest = std::min(oldest, block.position[slot]);
    for (int first = seen.first_query; first < count; first += together) {
      const int queries = std::min(together, count - first);
      if (sight.positions[static_cast<std::size_t>(first + queries - 1)] < oldest) continue;
      for (int row = 0; row < queries * group;
           row += kRowTile) {  // more than one turn only where group > kRowTile
        const int rows = std::min(kRowTile, queries * group - row);
        block_scores<Simd>(sight, index, first * group + row, rows, scores, masks);
        for (int at = 0; at < rows; ++at) {
          const int query_head = sight.head_index * group + (row + at) % group;
          const int query = (row + at) / group;
          const F lse = Simd::set1(seen.lse[query_head * count + first + query]);
          float* line = scores + at * kBlockTokens;
          for (int lane = 0; lane < kBlockTokens; lane += Simd::kLanes) {
            Simd::store(line + lane, exp_lanes<Simd>(Simd::sub(Simd::load(line + lane), lse)));
          }
          reduce_weights<Simd>(seen.reduce, (row + at) % group == 0, group, line, 1.0F,
                               weights + query * kBlockTokens);
        }
      }
      for (int query = 0; query < queries; ++query) {
        const int at = first + query;
        const Attention attention{
            .visible = seen.visible[static_cast<std::size_t>(at)],
            .step = sight.positions[static_cast<std::size_t>(at)],
            .row = at - seen.first_query,
            .after = count - 1 - at,
            .generated = generated(sight.positions[static_cast<std::size_t>(at)], seen.prompt_end)};
        const std::uint32_t in_sight = masks[group > kRowTile ? 0 : query * group];
        std::uint32_t visible = in_sight;
        if (sight.options->window > 0) {
          visible = visible_slots(block, attention.step, 0);
          for (std::uint32_t hidden = visible & ~in_sight; hidden != 0; hidden &= hidden - 1U)
            weights[query * kBlockTokens + std::countr_zero(hidden)] = 0.0F;
        }
        sink(block, visible, weights + query * kBlockTokens, attention);
      }
    }
  }
}

}  // namespace kvast
