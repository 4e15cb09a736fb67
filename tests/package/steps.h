// SPDX-License-Identifier: Apache-2.0
// A few steps of a cache, as a user of the package would write them, and all that came of them.
#pragma once

#include <kvast/kvast.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "outcome.h"

// Internal linkage on purpose: each translation unit runs its own copy, so that only the library's
// functions can clash.
namespace {

/// A number in [-1, 1), in steps of 2^-10. Integers and one exact division: float arithmetic here
/// would be contracted to fused multiply-adds for one instruction set and not for the other, and
/// the library would be blamed for it.
[[maybe_unused]] float noise(int token, int layer, int kind, std::size_t dim) {
  std::uint32_t bits = static_cast<std::uint32_t>(((token * 2 + layer) * 3 + kind) * 1024) +
                       static_cast<std::uint32_t>(dim);
  bits = (bits ^ (bits >> 16U)) * 0x7FEB352DU;
  bits = (bits ^ (bits >> 15U)) * 0x846CA68BU;
  return static_cast<float>(static_cast<int>(bits >> 21U) - 1024) / 1024.0F;
}

/// 80 tokens under H2O in half precision; incomplete when a pass was refused or the budget was
/// broken.
[[maybe_unused]] Outcome run_steps() {
  constexpr int kTokens = 80;
  constexpr int kDim = 32;
  const kvast::Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = kDim};
  kvast::BlockPool pool;
  kvast::KVCache<kvast::H2O, kvast::Dense<kvast::half>> cache(
      shape, kvast::H2O{.heavy = 16, .recent = 16}, {}, pool);

  Outcome outcome;
  for (int token = 0; token < kTokens; ++token) {
    auto pass = cache.begin({});
    if (!pass) return outcome;
    for (int layer = 0; layer < shape.layers; ++layer) {
      std::vector<float> keys(2 * kDim), values(2 * kDim), queries(4 * kDim), output(4 * kDim);
      for (std::size_t dim = 0; dim < keys.size(); ++dim) keys[dim] = noise(token, layer, 0, dim);
      for (std::size_t dim = 0; dim < values.size(); ++dim) {
        values[dim] = 1 + noise(token, layer, 1, dim);
      }
      for (std::size_t dim = 0; dim < queries.size(); ++dim) {
        queries[dim] = noise(token, layer, 2, dim);
      }
      pass->append(layer, keys.data(), values.data());
      pass->attend(layer, queries.data(), output.data());
      pass->commit(layer);
      outcome.outputs.insert(outcome.outputs.end(), output.begin(), output.end());
    }
  }
  outcome.complete = cache.length() == kTokens;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int head = 0; head < shape.heads; ++head) {
      const std::vector<int> kept = cache.kept(layer, head);
      outcome.complete = outcome.complete && !kept.empty() && kept.size() <= 32;
      outcome.kept.insert(outcome.kept.end(), kept.begin(), kept.end());
    }
  }
  return outcome;
}

}  // namespace
