// SPDX-License-Identifier: Apache-2.0
// allocate: one budget for all heads of a layer, split by what their tokens are worth.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kvast/core/apportion.h"
#include "kvast/host/select.h"

namespace kvast {

namespace detail {

/// A head's tokens that may stay or go, best first, and how many are pinned.
struct Stakes {
  std::vector<RankWork::Candidate> best;
  int pinned = 0;
};

inline Stakes stakes_of(const Head& head, RankWork& work) {
  const int pinned = sort_out(head, work);
  Stakes stakes{.best = work.candidates, .pinned = pinned};
  std::sort(stakes.best.rbegin(), stakes.best.rend());
  return stakes;
}

/// How many of each head's tokens are among the best `room` of all, each head's first `floors` left
/// out. Ties: the newer token, then the first head.
inline std::vector<int> best_of_all(std::span<const Stakes> heads, std::span<const int> floors,
                                    int room) {
  struct Entry {
    RankWork::Candidate candidate;
    int head;
  };
  std::vector<Entry> all;
  for (std::size_t head = 0; head < heads.size(); ++head) {
    for (auto at = static_cast<std::size_t>(floors[head]); at < heads[head].best.size(); ++at)
      all.push_back({heads[head].best[at], static_cast<int>(head)});
  }
  std::stable_sort(all.begin(), all.end(), [](const Entry& left, const Entry& right) {
    return right.candidate < left.candidate;
  });
  std::vector<int> counts(heads.size(), 0);
  const auto taken = std::min(all.size(), static_cast<std::size_t>(std::max(room, 0)));
  for (std::size_t at = 0; at < taken; ++at) ++counts[static_cast<std::size_t>(all[at].head)];
  return counts;
}

}  // namespace detail

/// Replaces each head's target, so that all keep heads * target tokens together (all of them, where
/// pins ask for more). Ref: Ada-KV, arXiv:2407.11550, §3.2; kvpress' AdaKVPress (Kind::floor).
inline void allocate_budget(std::span<const Head> heads, Allocation allocation,
                            std::span<RankWork* const> work) {
  const int budget = work[0]->target;
  if (budget < 0) return;
  const std::size_t count = heads.size();
  std::vector<detail::Stakes> stakes;
  std::int64_t tokens = static_cast<std::int64_t>(budget) * static_cast<std::int64_t>(count);
  std::int64_t most_room = 0;
  for (std::size_t head = 0; head < count; ++head) {
    stakes.push_back(detail::stakes_of(heads[head], *work[head]));
    tokens -= stakes.back().pinned;
    most_room += std::ssize(stakes.back().best);
  }
  const auto room = static_cast<int>(std::clamp<std::int64_t>(tokens, 0, most_room));
  const auto alpha = static_cast<double>(allocation.safeguard);
  std::vector<int> parts(count, 0);
  if (allocation.kind == Allocation::Kind::floor) {
    const int safe = std::max(1, static_cast<int>(std::floor(alpha * budget + 1e-6)));
    int floors = 0;
    for (std::size_t head = 0; head < count; ++head) {
      parts[head] =
          std::clamp(safe - stakes[head].pinned, 0, static_cast<int>(stakes[head].best.size()));
      parts[head] = std::min(parts[head], room - floors);
      floors += parts[head];
    }
    const std::vector<int> more = detail::best_of_all(stakes, parts, room - floors);
    for (std::size_t head = 0; head < count; ++head) parts[head] += more[head];
  } else {
    const std::vector<int> counts = detail::best_of_all(stakes, parts, room);
    std::vector<double> shares(count);
    std::vector<int> most(count);
    for (std::size_t head = 0; head < count; ++head) {
      shares[head] = counts[head] * (1.0 - alpha) + alpha * room / static_cast<double>(count);
      most[head] = static_cast<int>(stakes[head].best.size());
    }
    apportion(shares, room, most, parts);
  }
  for (std::size_t head = 0; head < count; ++head)
    work[head]->target = stakes[head].pinned + parts[head];
}

}  // namespace kvast
