// SPDX-License-Identifier: Apache-2.0
// ByteBudget: how many tokens a policy may keep so that a cache's bytes stay within a limit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvast/core/compose.h"
#include "kvast/host/layer_plan.h"

namespace kvast {

/// What KVCache::bytes_in_use may be after a pass in which the policy acted: payload, metadata of
/// formats, positions, policy state, and what waits dense. A pass itself holds its new tokens
/// besides. Ref: "More Tokens, Lower Precision", arXiv:2412.12706; there metadata is left out.
struct ByteBudget {
  std::size_t per_layer = 0;  ///< of each layer; 0: no limit
  std::size_t total = 0;      ///< of all layers together; 0: no limit
  int longest_prompt = 1;     ///< tokens; lists of pointers grow with it and stay
};

namespace detail {

inline std::size_t charged_block(const LayerPlan& plan, bool coded) {
  return BlockPool::charged(plan.side.bytes) + BlockPool::charged(plan.key_bytes(coded)) +
         BlockPool::charged(plan.value_bytes(coded));
}

/// The most coded blocks that repacking leaves of a head with `live` tokens, `coded` of them in
/// such blocks: see wants_repack, and choose_merge, which finds nothing to free where eight blocks
/// hold more than seven.
inline int most_coded_blocks(int live, int coded) {
  return std::min(coded, std::max({blocks_of(coded), live / 24, coded / 28 + 1}));
}

/// The most bytes that a head with `tokens` tokens holds after a commit.
inline std::size_t most_head_bytes(const LayerPlan& plan, int tokens, int longest_prompt) {
  const auto list = [](int blocks) {
    return BlockPool::charged(list_bytes(list_capacity(std::max(blocks, 1))));
  };
  const int arriving = blocks_of(tokens + longest_prompt);
  if (!plan.is_coded())
    return static_cast<std::size_t>(blocks_of(tokens)) * charged_block(plan, false) +
           list(arriving);
  const std::size_t dense_block = charged_block(plan, false);
  const std::size_t coded_block = charged_block(plan, true);
  const std::int64_t waiting =
      std::int64_t{plan.formats.residual} + kBlockTokens - 1 + plan.formats.first_coded;
  const int most_dense = blocks_of(static_cast<int>(std::min<std::int64_t>(tokens, waiting)));
  std::size_t most = 0;
  for (int dense = 0; dense <= most_dense; ++dense) {
    // as many tokens as can be coded, with so many dense blocks
    const int coded = dense == 0 ? tokens : tokens - (dense - 1) * kBlockTokens - 1;
    most = std::max(most,
                    static_cast<std::size_t>(dense) * dense_block +
                        static_cast<std::size_t>(most_coded_blocks(tokens, coded)) * coded_block);
  }
  return most + list(arriving) + list(arriving + tokens / 24 + 1);
}

/// The largest number in [0, most] for which fits(number) holds, which it does up to some number.
template <class Fits>
int largest_that_fits(int most, Fits&& fits) {
  int least = 0;
  while (least < most) {
    const int middle = most - (most - least) / 2;
    if (fits(middle)) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  return least;
}

}  // namespace detail

/// Per layer the most tokens per head, at most `most`, with which a cache of this policy and
/// storage stays within the budget; 0 where not even one does. Under `total` all layers get the
/// same count, under `per_layer` alone each its own. Of policies whose heads share a budget it is
/// the mean per head. Not for Positions::compacted, where evicted tokens leave holes.
template <class Policy, class Storage>
std::vector<int> tokens_within(const ByteBudget& budget, const ShapeList& shape,
                               const Policy& policy, const Storage& storage, int most = 1 << 20,
                               Caller caller = Caller::here()) {
  require(budget.per_layer > 0 || budget.total > 0, caller,
          "ByteBudget: neither per_layer nor total is given");
  require(budget.longest_prompt >= 1 && budget.longest_prompt <= (1 << 20), caller,
          "ByteBudget.longest_prompt is ", budget.longest_prompt, ", must lie in [1, 2^20]");
  require(most >= 0 && most <= (1 << 20), caller, "tokens_within: most is ", most,
          ", must lie in [0, 2^20]");
  storage.validate(caller);
  if constexpr (requires { storage.validate_shape(shape, caller); })
    storage.validate_shape(shape, caller);
  std::vector<LayerPlan> plans;
  for (int layer = 0; layer < shape.layers(); ++layer) {
    detail::of_layer(policy, layer, [&](const auto& mine) {
      using Mine = std::remove_cvref_t<decltype(mine)>;
      plans.push_back(plan_layer(shape[layer], storage.template plan<Simd>(layer),
                                 SideLayout::of<typename Mine::State>(Mine::needs)));
    });
  }
  // heads of unequal length end in as many partly filled blocks, and their lists double apart
  const int slack = detail::allocates<Policy>() ? kBlockTokens - 1 : 0;
  const auto bytes = [&](const LayerPlan& plan, int tokens) {
    if (tokens == 0) return std::size_t{0};
    return static_cast<std::size_t>(plan.shape.heads) *
           detail::most_head_bytes(plan, tokens + slack,
                                   budget.longest_prompt + (slack > 0 ? tokens : 0));
  };
  std::vector<int> tokens;
  for (const LayerPlan& plan : plans) {
    tokens.push_back(detail::largest_that_fits(most, [&](int count) {
      return budget.per_layer == 0 || bytes(plan, count) <= budget.per_layer;
    }));
  }
  if (budget.total == 0) return tokens;
  const int fewest = *std::min_element(tokens.begin(), tokens.end());
  const int same = detail::largest_that_fits(fewest, [&](int count) {
    std::size_t sum = 0;
    for (const LayerPlan& plan : plans) sum += bytes(plan, count);
    return sum <= budget.total;
  });
  tokens.assign(tokens.size(), same);
  return tokens;
}

}  // namespace kvast
