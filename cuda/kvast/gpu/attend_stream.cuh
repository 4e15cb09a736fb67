// SPDX-License-Identifier: Apache-2.0
// The ring of one warp: tiles of keys and of values take turns, and their copies run ahead of what
// is done with them.
#pragma once

#include "kvast/gpu/attend_walk.cuh"
#include "kvast/gpu/block.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// What a warp remembers of a block whose tiles are in its ring, or on their way there.
struct alignas(16) Visit {
  std::uint32_t live;
  int index;
  int before;
  int aged;
  int positions[kBlockTokens];
};

/// Blocks whose tiles are in a ring of `slots` at the same time.
KVAST_HD constexpr int visits_of(int slots) { return slots / 2 + 1; }

/// Reading (attend_shape.cuh) says how a block's tiles get to shared memory.
template <class Reading, class Block>
class Stream {
 public:
  /// `ring`: Reading::kSlots tiles; `visits`: visits_of(Reading::kSlots).
  KVAST_HD Stream(const Block& block, const LayerView& layer, const Walk& walk, std::byte* ring,
                  Visit* visits, bool copies_positions)
      : block_(block),
        layer_(layer),
        walk_(walk),
        ring_(ring),
        visits_(visits),
        copies_positions_(copies_positions) {
    for (int ahead = 0; ahead < Reading::kSlots; ++ahead) issue();
  }

  /// Whether there is a block after the `visited` first ones.
  KVAST_HD bool more(int visited) const { return visited < issued_; }
  KVAST_HD const Visit& visit(int visited) const { return visits_[visited % kVisits]; }
  /// The tile whose turn it is, once it is there.
  KVAST_HD const std::byte* wait() {
    block_.template wait_copies<Reading::kSlots - 1>();
    block_.warp().sync();
    const std::byte* tile = ring_ + read_at_ * Reading::kSlotBytes;
    read_at_ = read_at_ + 1 == Reading::kSlots ? 0 : read_at_ + 1;
    return tile;
  }
  /// Once all lanes are through with the oldest tile.
  KVAST_HD void release() {
    block_.warp().sync();
    issue();
  }

 private:
  static constexpr int kVisits = visits_of(Reading::kSlots);

  /// Starts the copy of the next tile, if there is one.
  KVAST_HD void issue() {
    std::byte* to = ring_ + write_at_ * Reading::kSlotBytes;
    write_at_ = write_at_ + 1 == Reading::kSlots ? 0 : write_at_ + 1;
    if (keys_next_) {
      Found found;
      values_ = nullptr;
      if (walk_.next(block_.warp(), found)) {
        values_ = found.values;
        announce(found);
        Reading::copy_keys(block_, layer_, found.keys, to);
      }
    } else if (values_ != nullptr) {
      Reading::copy_values(block_, layer_, values_, to);
    }
    keys_next_ = !keys_next_;
    block_.commit_copies();
  }
  KVAST_HD void announce(const Found& found) {
    Visit& visit = visits_[issued_++ % kVisits];
    const int lane = block_.warp().lane();
    if (lane == 0) {
      visit.live = found.live;
      visit.index = found.index;
      visit.before = found.before;
      visit.aged = found.aged ? 1 : 0;
    }
    if (copies_positions_ && lane < kBlockTokens / 2)
      block_.template copy_async<8>(visit.positions + 2 * lane, found.record->position + 2 * lane);
  }

  const Block& block_;
  const LayerView& layer_;
  Walk walk_;
  std::byte* ring_;
  Visit* visits_;
  bool copies_positions_;
  int issued_ = 0;  ///< blocks whose keys were asked for
  int write_at_ = 0;
  int read_at_ = 0;
  bool keys_next_ = true;
  const std::byte* values_ = nullptr;
};

}  // namespace kvast::gpu
