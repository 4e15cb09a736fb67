// SPDX-License-Identifier: Apache-2.0
// One rank out of several: of neighbours along the sequence, or of a layer's heads.
#pragma once

#include "kvast/core/policy.h"

namespace kvast {

/// Vote `at` of `votes` [count], which are in order of position, smoothed.
KVAST_HD inline float pooled_vote(const float* votes, int count, int at, Pooling pooling) {
  const int begin = most_of(0, at - pooling.width / 2);
  const int end = least_of(count, at + pooling.width / 2 + 1);
  double pooled = static_cast<double>(votes[begin]);  // or equal windows would not tie
  for (int neighbour = begin + 1; neighbour < end; ++neighbour) {
    const float vote = votes[neighbour];
    if (pooling.kind == Pooling::Kind::average) {
      pooled += static_cast<double>(vote);
    } else if (rank_key(vote) > rank_key(static_cast<float>(pooled))) {
      pooled = static_cast<double>(vote);
    }
  }
  if (pooling.kind == Pooling::Kind::average) pooled /= pooling.width;
  return static_cast<float>(pooled);
}

/// The rank that heads with one set share, from the sum of theirs and the greatest and the least
/// rank_key: a pin of any head holds for all, and so does a drop where no head pins.
KVAST_HD inline float shared_rank(float sum, float heads, std::int32_t highest,
                                  std::int32_t lowest) {
  const float mean = lowest <= kDropKey ? kDrop : divide(sum, heads);
  return highest >= kPinKey ? kPin : mean;
}

}  // namespace kvast
