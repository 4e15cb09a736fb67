// SPDX-License-Identifier: Apache-2.0
// How many tokens a policy leaves in each layer and head.
#pragma once

#include <numeric>

#include "tests/policy/simulation.h"

namespace kvast::test {

/// Tokens per head and layer after a prompt of the conversation script.
template <class Policy>
std::vector<std::vector<int>> counts_after_prompt(Policy policy, Shape shape, int prompt) {
  test::Run<Policy, Dense<float>> run(conversation_script(41, shape), policy);
  run.pass({.tokens = prompt, .last_of_prompt = true});
  std::vector<std::vector<int>> counts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    counts.emplace_back();
    for (int head = 0; head < shape.heads; ++head)
      counts.back().push_back(run.cache().tokens(layer, head));
  }
  return counts;
}
inline int sum(const std::vector<int>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0);
}
inline int total_of(const std::vector<std::vector<int>>& counts) {
  int total = 0;
  for (const std::vector<int>& layer : counts) total += sum(layer);
  return total;
}

}  // namespace kvast::test
