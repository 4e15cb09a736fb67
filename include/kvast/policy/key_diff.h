// SPDX-License-Identifier: Apache-2.0
// KeyDiff: keys that differ from the others are worth keeping.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvast/core/check_policy.h"

namespace kvast {

/// Drops the keys that point most nearly in the direction of the mean of all unit keys of the head.
/// Needs no attention. Ref: KeyDiff, arXiv:2504.15364.   State: none; keys are decoded when it
/// acts.
struct KeyDiff {
  int tokens_kept = 512;  ///< budget per head
  int recent = 0;         ///< newest tokens, always kept; not in the paper
  When when = When::prompt();
  static constexpr Needs needs{.vectors = true};
  struct State {};

  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    const auto dim = static_cast<std::size_t>(view.head_dim);
    const std::size_t count = view.tokens.size();
    std::vector<double> anchor(dim, 0.0);
    std::vector<double> norms(count);
    for (std::size_t at = 0; at < count; ++at) {
      const auto key = view.keys.subspan(at * dim, dim);
      double squares = 0.0;
      for (const float number : key) squares += static_cast<double>(number) * number;
      norms[at] = std::max(std::sqrt(squares), 1e-12);
      for (std::size_t index = 0; index < dim; ++index) anchor[index] += key[index] / norms[at];
    }
    double anchor_norm = 0.0;
    for (const double number : anchor) anchor_norm += number * number;
    anchor_norm = std::max(std::sqrt(anchor_norm), 1e-12);
    for (std::size_t at = 0; at < count; ++at) {
      double product = 0.0;
      for (std::size_t index = 0; index < dim; ++index)
        product += view.keys[at * dim + index] * anchor[index];
      const double cosine = product / norms[at] / anchor_norm;
      ranks[at] = view.tokens[at].age < recent ? kPin : static_cast<float>(-cosine);
    }
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const { check_kept("KeyDiff", tokens_kept, recent, caller); }
};
static_assert(check_policy<KeyDiff>());

}  // namespace kvast
