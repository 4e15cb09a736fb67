// SPDX-License-Identifier: Apache-2.0
// select: from ranks and a budget to the slots that must go. The same for every policy.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/core/policy.h"
#include "kvast/host/rank.h"

namespace kvast {

namespace detail {

inline bool is_landmark(float rank) {
  const std::int32_t key = rank_key(rank);
  return key >= kPinKey || key <= kDropKey;
}

}  // namespace detail

/// Smooths the ranks of tokens that are neither pinned nor dropped, along the sequence.
/// Ref: SnapKV, arXiv:2404.14469, §4.2; the authors' zero padding at both ends is kept.
inline void pool_ranks(const Head& head, Pooling pooling, RankWork& work) {
  if (pooling.width <= 1) return;
  order_tokens(head, work.order);
  std::erase_if(work.order, [&](Place place) {
    return detail::is_landmark(work.ranks[static_cast<std::size_t>(place.slot)]);
  });
  const int count = static_cast<int>(work.order.size());
  std::vector<float>& votes = work.in_order;
  votes.resize(work.order.size());
  for (int at = 0; at < count; ++at)
    votes[static_cast<std::size_t>(at)] =
        work.ranks[static_cast<std::size_t>(work.order[static_cast<std::size_t>(at)].slot)];
  for (int at = 0; at < count; ++at) {
    const int begin = std::max(0, at - pooling.width / 2);
    const int end = std::min(count, at + pooling.width / 2 + 1);
    double pooled = votes[static_cast<std::size_t>(begin)];  // or equal windows would not tie
    for (int neighbour = begin + 1; neighbour < end; ++neighbour) {
      const double vote = votes[static_cast<std::size_t>(neighbour)];
      pooled = pooling.kind == Pooling::Kind::average ? pooled + vote : std::max(pooled, vote);
    }
    if (pooling.kind == Pooling::Kind::average) pooled /= pooling.width;
    work.ranks[static_cast<std::size_t>(work.order[static_cast<std::size_t>(at)].slot)] =
        static_cast<float>(pooled);
  }
}

/// One set per layer: every head's rank becomes the mean over heads; a pin of any head holds for
/// all, and so does a drop where no head pins. Heads that keep one set hold the same tokens in the
/// same slots.
inline void share_ranks(std::span<RankWork* const> heads) {
  std::vector<float>& first = heads[0]->ranks;
  for (std::size_t slot = 0; slot < first.size(); ++slot) {
    bool pinned = false;
    bool dropped = false;
    float sum = 0.0F;
    for (const RankWork* head : heads) {
      const std::int32_t key = rank_key(head->ranks[slot]);
      pinned = pinned || key >= kPinKey;
      dropped = dropped || key <= kDropKey;
      sum += head->ranks[slot];
    }
    const float landmark = pinned ? kPin : kDrop;
    first[slot] = pinned || dropped ? landmark : sum / static_cast<float>(heads.size());
  }
  for (RankWork* head : heads.subspan(1)) head->ranks = first;
}

/// Sorts a head's live tokens by what their ranks say: dropped ones are `work.victims`, those that
/// may stay or go `work.candidates`. Returns how many are pinned.
inline int sort_out(const Head& head, RankWork& work) {
  work.candidates.clear();
  work.victims.clear();
  int pinned = 0;
  for (int index = 0; index < head.blocks(); ++index) {
    const Block& block = head.block(index);
    for (std::uint32_t live = block.live; live != 0; live &= live - 1U) {
      const int slot = index * kBlockTokens + std::countr_zero(live);
      const std::int32_t key = rank_key(work.ranks[static_cast<std::size_t>(slot)]);
      if (key >= kPinKey) {
        ++pinned;
      } else if (key <= kDropKey) {
        work.victims.push_back(slot);
      } else {
        work.candidates.push_back({key, block.position[slot % kBlockTokens], slot});
      }
    }
  }
  return pinned;
}

/// Fills `work.victims`: everything dropped, and of the rest the lowest ranks until `work.target`
/// tokens (negative: no limit) are left. Pinned tokens stay even beyond the target. Ties: the newer
/// token stays.
inline void select_victims(const Head& head, RankWork& work) {
  const int target = work.target;
  const int pinned = sort_out(head, work);
  std::vector<RankWork::Candidate>& candidates = work.candidates;
  const int room = work.room >= 0 ? work.room : std::max(0, target - pinned);
  const bool limited = work.room >= 0 || target >= 0;
  const int excess = limited ? static_cast<int>(candidates.size()) - room : 0;
  if (excess == 1) {
    work.victims.push_back(std::min_element(candidates.begin(), candidates.end())->slot);
  } else if (excess > 1) {
    if (excess < static_cast<int>(candidates.size()))
      std::nth_element(candidates.begin(), candidates.begin() + excess, candidates.end());
    for (int at = 0; at < excess; ++at)
      work.victims.push_back(candidates[static_cast<std::size_t>(at)].slot);
  }
  std::sort(work.victims.begin(), work.victims.end());
}

}  // namespace kvast
