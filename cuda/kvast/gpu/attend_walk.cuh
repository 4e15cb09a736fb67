// SPDX-License-Identifier: Apache-2.0
// A warp's way through a range of a head's blocks, past those that hold nothing for its queries.
#pragma once

#include "kvast/core/block.h"
#include "kvast/gpu/warp.cuh"

namespace kvast::gpu {

/// Index of the lowest bit that is set; 32 for none.
KVAST_HD inline int lowest_bit(std::uint32_t word) { return count_bits((word & (0U - word)) - 1U); }

/// A block on the way; the same in all lanes.
struct Found {
  const kvast::Block* record = nullptr;
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;
  std::uint32_t live = 0;
  int index = 0;      ///< as Head::block counts
  int before = 0;     ///< live tokens in the blocks before it, where these are counted
  bool aged = false;  ///< some of its tokens are too old for some query
};

/// Which positions a sliding window leaves in sight: those above `oldest_first` for the first
/// query, and above `oldest_last` for the last one.
struct Horizon {
  static constexpr int kNone = -0x7FFFFFFF;
  int oldest_first = kNone;
  int oldest_last = kNone;
};

/// Records lie apart from each other, and payload is found through them: 32 of them are read at the
/// same time, a lane each.
class Walk {
 public:
  /// Blocks [first, end). `counts`: fill in Found::before.
  template <class Warp>
  KVAST_HD Walk(const Warp& warp, const Head& head, int first, int end, Horizon horizon,
                bool counts)
      : head_(head), next_(first), end_(end), horizon_(horizon), counts_(counts) {
    if (!counts) return;
    for (int index = warp.lane(); index < first; index += kWarp)
      before_ += head.block(index).live_count();
    before_ = warp_sum(warp, before_);
  }

  /// False at the end. All lanes call together.
  template <class Warp>
  KVAST_HD bool next(const Warp& warp, Found& found) {
    while (wanted_ == 0) {
      if (next_ >= end_) return false;
      look(warp);
    }
    const int source = lowest_bit(wanted_);
    wanted_ &= wanted_ - 1U;
    using Address = unsigned long long;
    const auto shown = [&](auto* pointer) {
      return reinterpret_cast<decltype(pointer)>(
          warp.shuffle(reinterpret_cast<Address>(pointer), source));
    };
    found.record = shown(record_);
    found.keys = shown(keys_);
    found.values = shown(values_);
    found.live = warp.shuffle(live_, source);
    found.index = next_ - kWarp + source;
    if (counts_) found.before = warp.shuffle(mine_before_, source);
    found.aged = (aged_ >> source & 1U) != 0;
    return true;
  }

 private:
  template <class Warp>
  KVAST_HD void look(const Warp& warp) {
    const int index = next_ + warp.lane();
    live_ = 0;
    if (index < end_) {
      record_ = &head_.block(index);
      keys_ = record_->keys;
      values_ = record_->values;
      live_ = record_->live;
    }
    bool wanted = live_ != 0;
    if (horizon_.oldest_last != Horizon::kNone) {
      bool aged = false;
      wanted = false;
      for (int slot = 0; slot < kBlockTokens && live_ != 0; ++slot) {
        if ((live_ >> slot & 1U) == 0) continue;
        wanted = wanted || record_->position[slot] > horizon_.oldest_first;
        aged = aged || record_->position[slot] <= horizon_.oldest_last;
      }
      aged_ = warp.ballot(aged);
    }
    if (counts_) {
      const int with_mine = warp_scan(warp, count_bits(live_));
      mine_before_ = before_ + with_mine - count_bits(live_);
      before_ += warp.shuffle(with_mine, kWarp - 1);
    }
    wanted_ = warp.ballot(wanted);
    next_ += kWarp;
  }

  const Head& head_;
  int next_;
  int end_;
  Horizon horizon_;
  bool counts_;
  int before_ = 0;
  std::uint32_t wanted_ = 0;
  std::uint32_t aged_ = 0;
  // of this lane's block
  const kvast::Block* record_ = nullptr;
  const std::byte* keys_ = nullptr;
  const std::byte* values_ = nullptr;
  std::uint32_t live_ = 0;
  int mine_before_ = 0;
};

}  // namespace kvast::gpu
