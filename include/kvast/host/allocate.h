// SPDX-License-Identifier: Apache-2.0
// allocate: one budget for all heads of a layer, split by what their tokens are worth.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/core/stakes.h"
#include "kvast/host/select.h"

namespace kvast {

namespace detail {

/// Sets each head's Stake::best: how many of its open tokens are among the best `room` of all, each
/// head's floor left out. Ties: the newer token, then the first head.
inline void best_of_all(std::span<std::vector<RankWork::Candidate>> heads, std::span<Stake> stakes,
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
    std::vector<RankWork::Candidate>& open = heads[head];
    const auto rest = open.begin() + stakes[head].floor;
    if (rest != open.begin() && rest != open.end())
      std::nth_element(open.begin(), rest, open.end(),
                       [](const auto& left, const auto& right) { return right < left; });
    for (auto at = rest; at != open.end(); ++at) all.push_back({*at, static_cast<int>(head)});
  }
  const auto taken = std::min(std::ssize(all), static_cast<std::ptrdiff_t>(std::max(room, 0)));
  if (taken < std::ssize(all)) std::nth_element(all.begin(), all.begin() + taken, all.end());
  for (auto at = all.begin(); at != all.begin() + taken; ++at)
    ++stakes[static_cast<std::size_t>(at->head)].best;
}

}  // namespace detail

/// Replaces each head's target, so that all keep heads * target tokens together (all of them, where
/// pins ask for more). Ref: Ada-KV, arXiv:2407.11550, §3.2; kvpress' AdaKVPress (Kind::floor).
inline void allocate_budget(std::span<const Head> heads, Allocation allocation,
                            std::span<RankWork* const> work) {
  const int budget = work[0]->target;
  if (budget < 0) return;
  const int count = static_cast<int>(heads.size());
  std::vector<std::vector<RankWork::Candidate>> open;
  std::vector<Stake> stakes(heads.size());
  for (std::size_t head = 0; head < heads.size(); ++head) {
    stakes[head].pinned = sort_out(heads[head], *work[head]);
    open.push_back(work[head]->candidates);
    stakes[head].most = static_cast<int>(open.back().size());
  }
  const int room = open_room(stakes.data(), count, budget);
  detail::best_of_all(open, stakes, set_floors(stakes.data(), count, allocation, budget, room));
  set_parts(stakes.data(), count, allocation, room);
  for (std::size_t head = 0; head < heads.size(); ++head)
    work[head]->target = stakes[head].pinned + stakes[head].part;
}

}  // namespace kvast
