// SPDX-License-Identifier: Apache-2.0
// A policy with a value per head (tier 2).
#pragma once

#include "kvast/core/check_policy.h"

namespace kvast::test {

/// Keeps the keys whose norm is nearest to the head's mean norm. Its sum is rounded: another order
/// would be another mean.
struct NearMean {
  int tokens_kept = 50;
  static constexpr Needs needs{.key_norms = true};
  struct State {};
  struct Head {
    float sum = 0.0F;
    int count = 0;
  };

  KVAST_HD Head summarize(Token token, State) const { return {token.key_norm, 1}; }
  KVAST_HD Head merge(Head left, Head right) const {
    return {left.sum + right.sum, left.count + right.count};
  }
  KVAST_HD float rank(Token token, State, Head head) const {
    const float apart = token.key_norm - head.sum / static_cast<float>(head.count);
    return apart < 0.0F ? apart : -apart;
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
};
static_assert(check_policy<NearMean>());

}  // namespace kvast::test
