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

/// A head's tokens that may stay or go, and how many are pinned.
struct Stakes {
  std::vector<RankWork::Candidate> open;
  int pinned = 0;
};

inline Stakes stakes_of(const Head& head, RankWork& work) {
  const int pinned = sort_out(head, work);
  return {.open = work.candidates, .pinned = pinned};
}

/// How many of each head's tokens are among the best `room` of all, each head's best `floors` left
/// out. Ties: the newer token, then the first head.
inline std::vector<int> best_of_all(std::span<Stakes> heads, std::span<const int> floors,
                                    int room) {
  struct Entry {
    RankWork::Candidate candidate;
    int head;
    bool operator<(const Entry& other) const {  // the better one
      if (other.candidate < candidate) return true;
      return !(candidate < other.candidate) && head < other.head;
    }
  };
  std::vector<Entry> all;
  for (std::size_t head = 0; head < heads.size(); ++head) {
    std::vector<RankWork::Candidate>& open = heads[head].open;
    const auto rest = open.begin() + floors[head];
    if (rest != open.begin() && rest != open.end())
      std::nth_element(open.begin(), rest, open.end(),
                       [](const auto& left, const auto& right) { return right < left; });
    for (auto at = rest; at != open.end(); ++at) all.push_back({*at, static_cast<int>(head)});
  }
  std::vector<int> counts(heads.size(), 0);
  const auto taken = std::min(std::ssize(all), static_cast<std::ptrdiff_t>(std::max(room, 0)));
  if (taken < std::ssize(all)) std::nth_element(all.begin(), all.begin() + taken, all.end());
  for (auto at = all.begin(); at != all.begin() + taken; ++at)
    ++counts[static_cast<std::size_t>(at->head)];
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
    most_room += std::ssize(stakes.back().open);
  }
  const auto room = static_cast<int>(std::clamp<std::int64_t>(tokens, 0, most_room));
  const auto alpha = static_cast<double>(allocation.safeguard);
  std::vector<int> parts(count, 0);
  if (allocation.kind == Allocation::Kind::floor) {
    const int safe = std::max(1, static_cast<int>(std::floor(alpha * budget + 1e-6)));
    int floors = 0;
    for (std::size_t head = 0; head < count; ++head) {
      parts[head] =
          std::clamp(safe - stakes[head].pinned, 0, static_cast<int>(stakes[head].open.size()));
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
      most[head] = static_cast<int>(stakes[head].open.size());
    }
    apportion(shares, room, most, parts);
  }
  for (std::size_t head = 0; head < count; ++head)
    work[head]->target = stakes[head].pinned + parts[head];
}

}  // namespace kvast
