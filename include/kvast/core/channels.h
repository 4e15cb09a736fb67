// SPDX-License-Identifier: Apache-2.0
// Which channels of a head's keys matter to its queries, and how many are kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace kvast {

/// Channels that are kept or dropped together: those that a rotation turns into each other.
enum class ChannelPairs : std::uint8_t {
  none,        ///< each alone
  halves,      ///< channel and channel + D / 2, see Pairing
  interleaved  ///< channel and channel + 1
};

/// What a storage asks for whose sealed keys have fewer channels. One choice per kv head, at the
/// end of the first prompt.
struct ChannelPlan {
  float pruned = -1.0F;  ///< share of the channels that is dropped, in [0, 1); negative: no choice
  int window = 32;       ///< newest queries of the prompt that choose
  ChannelPairs pairs = ChannelPairs::none;

  bool chooses() const { return pruned >= 0.0F; }
  /// Of `dim` channels; rounded up to a multiple of 8, so that rows fill vectors.
  int kept(int dim) const {
    constexpr int kStep = 8;
    const int dropped = static_cast<int>(static_cast<float>(dim) * pruned + 1e-4F);
    return std::min(dim, (dim - dropped + kStep - 1) / kStep * kStep);
  }
};

/// The `kept` channels with the largest products of the queries' energy and the keys', ascending:
/// what each adds to the square of all logits. With pairs, those of both count together. Ties: the
/// lower channel. Ref: ThinK, arXiv:2407.21018, Equation 3.
///   queries, keys  [dim] sums of squares per channel
inline std::vector<std::uint16_t> choose_channels(std::span<const double> queries,
                                                  std::span<const double> keys, int kept,
                                                  ChannelPairs pairs) {
  const std::size_t dim = queries.size();
  std::vector<double> scores(dim);
  for (std::size_t at = 0; at < dim; ++at) scores[at] = queries[at] * keys[at];
  const std::size_t apart = pairs == ChannelPairs::halves ? dim / 2 : 1;
  const auto first_of_pair = [&](std::size_t at) {
    return pairs == ChannelPairs::halves ? at < apart : at % 2 == 0;
  };
  std::vector<std::uint16_t> order;
  for (std::size_t at = 0; at < dim; ++at) {
    if (pairs != ChannelPairs::none && !first_of_pair(at)) continue;
    if (pairs != ChannelPairs::none) scores[at] += scores[at + apart];
    order.push_back(static_cast<std::uint16_t>(at));
  }
  std::stable_sort(order.begin(), order.end(), [&](std::uint16_t left, std::uint16_t right) {
    return scores[left] > scores[right];
  });
  order.resize(static_cast<std::size_t>(pairs == ChannelPairs::none ? kept : kept / 2));
  if (pairs != ChannelPairs::none) {
    for (std::size_t at = order.size(); at-- > 0;)
      order.push_back(static_cast<std::uint16_t>(order[at] + apart));
  }
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace kvast
