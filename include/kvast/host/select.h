// SPDX-License-Identifier: Apache-2.0
// select: from ranks and a budget to the slots that must go. The same for every policy.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/core/combine_ranks.h"
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
  for (int at = 0; at < count; ++at)
    work.ranks[static_cast<std::size_t>(work.order[static_cast<std::size_t>(at)].slot)] =
        pooled_vote(votes.data(), count, at, pooling);
}

/// One set per layer: every head's rank becomes the mean over heads (shared_rank). Heads that keep
/// one set hold the same tokens in the same slots.
inline void share_ranks(std::span<RankWork* const> heads) {
  std::vector<float>& first = heads[0]->ranks;
  const auto count = static_cast<float>(heads.size());
  for (std::size_t block = 0; block < first.size(); block += kBlockTokens) {
    float sums[kBlockTokens] = {};
    std::int32_t highest[kBlockTokens];
    std::int32_t lowest[kBlockTokens];
    std::fill_n(highest, kBlockTokens, kDropKey);
    std::fill_n(lowest, kBlockTokens, kPinKey);
    for (const RankWork* head : heads) {
      const float* ranks = head->ranks.data() + block;
      for (int slot = 0; slot < kBlockTokens; ++slot) {
        const std::int32_t key = rank_key(ranks[slot]);
        highest[slot] = std::max(highest[slot], key);
        lowest[slot] = std::min(lowest[slot], key);
        sums[slot] += ranks[slot];
      }
    }
    for (int slot = 0; slot < kBlockTokens; ++slot)
      first[block + static_cast<std::size_t>(slot)] =
          shared_rank(sums[slot], count, highest[slot], lowest[slot]);
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

namespace detail {

/// Calls body(slot in the head, rank_key) for the live tokens of one block.
template <class Body>
void for_keys(const Head& head, const RankWork& work, int index, Body&& body) {
  const float* ranks = work.ranks.data() + index * kBlockTokens;
  for (std::uint32_t live = head.block(index).live; live != 0; live &= live - 1U) {
    const int slot = std::countr_zero(live);
    body(index * kBlockTokens + slot, rank_key(ranks[slot]));
  }
}

/// Fills `work.least`, appends what is dropped to `work.victims`, and returns how many are pinned.
/// In a decode step nearly every block is full and loses nothing: then it is one vector loop.
inline int survey(const Head& head, RankWork& work) {
  work.least.resize(static_cast<std::size_t>(head.blocks()));
  int pinned = 0;
  for (int index = 0; index < head.blocks(); ++index) {
    const std::uint32_t live = head.block(index).live;
    const float* ranks = work.ranks.data() + index * kBlockTokens;
    std::int32_t keys[kBlockTokens];
    for (int slot = 0; slot < kBlockTokens; ++slot) keys[slot] = rank_key(ranks[slot]);
    if (live != kAllLive) {
      for (int slot = 0; slot < kBlockTokens; ++slot)
        keys[slot] = (live >> slot & 1U) != 0 ? keys[slot] : kPinKey;
      pinned -= kBlockTokens - std::popcount(live);
    }
    std::int32_t least = kPinKey;
    int dropped = 0;
    for (const std::int32_t key : keys) {
      pinned += key >= kPinKey ? 1 : 0;
      dropped += key <= kDropKey ? 1 : 0;
      least = std::min(least, key <= kDropKey ? kPinKey : key);
    }
    work.least[static_cast<std::size_t>(index)] = least;
    if (dropped == 0) continue;
    for_keys(head, work, index, [&](int slot, std::int32_t key) {
      if (key <= kDropKey) work.victims.push_back(slot);
    });
  }
  return pinned;
}

/// The slot of the token that goes first, by what `survey` found.
inline int lowest_slot(const Head& head, const RankWork& work) {
  const std::int32_t least = *std::min_element(work.least.begin(), work.least.end());
  int lowest = -1;
  int oldest = 0;
  for (int index = 0; index < head.blocks(); ++index) {
    if (work.least[static_cast<std::size_t>(index)] != least) continue;
    for_keys(head, work, index, [&](int slot, std::int32_t key) {
      const int position = head.block(index).position[slot % kBlockTokens];
      if (key != least || (lowest >= 0 && position > oldest)) return;
      lowest = slot;
      oldest = position;
    });
  }
  return lowest;
}

}  // namespace detail

/// Fills `work.victims`: everything dropped, and of the rest the lowest ranks until `work.target`
/// tokens (negative: no limit) are left. Pinned tokens stay even beyond the target. Ties: the newer
/// token stays.
inline void select_victims(const Head& head, RankWork& work) {
  const int target = work.target;
  work.victims.clear();
  const int pinned = detail::survey(head, work);
  const int open = head.live() - pinned - static_cast<int>(work.victims.size());
  const int room = work.room >= 0 ? work.room : std::max(0, target - pinned);
  const bool limited = work.room >= 0 || target >= 0;
  const int excess = limited ? open - room : 0;
  if (excess == 1) {
    work.victims.push_back(detail::lowest_slot(head, work));
  } else if (excess > 1) {
    sort_out(head, work);
    std::vector<RankWork::Candidate>& candidates = work.candidates;
    if (excess < static_cast<int>(candidates.size()))
      std::nth_element(candidates.begin(), candidates.begin() + excess, candidates.end());
    for (int at = 0; at < excess; ++at)
      work.victims.push_back(candidates[static_cast<std::size_t>(at)].slot);
  }
  std::sort(work.victims.begin(), work.victims.end());
}

}  // namespace kvast
