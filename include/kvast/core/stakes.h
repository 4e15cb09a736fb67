// SPDX-License-Identifier: Apache-2.0
// The arithmetic of allocate: from what heads have to what each of them may keep.
#pragma once

#include "kvast/core/apportion.h"
#include "kvast/core/policy.h"

namespace kvast {

/// A head that shares a budget with others. `most` are its open tokens, which may stay or go, and
/// `part` those that will stay.
struct Stake : Claim {
  int pinned = 0;
  int floor = 0;  ///< of its best open tokens, those that stay whatever other heads have
  int best = 0;   ///< of the others, those that are among the best of all heads
};

/// Open tokens that may stay in `heads` heads together, where they are to keep `budget` each.
KVAST_HD inline int open_room(const Stake* stakes, int heads, int budget) {
  std::int64_t tokens = std::int64_t{budget} * heads;
  std::int64_t most = 0;
  for (int head = 0; head < heads; ++head) {
    tokens -= stakes[head].pinned;
    most += stakes[head].most;
  }
  return static_cast<int>(clamped<std::int64_t>(tokens, 0, most));
}

/// Sets every `floor`, and returns what they leave of `room`.
KVAST_HD inline int set_floors(Stake* stakes, int heads, Allocation allocation, int budget,
                               int room) {
  const double safe = multiply(static_cast<double>(allocation.safeguard), budget) + 1e-6;
  for (int head = 0; head < heads; ++head) {
    Stake& stake = stakes[head];
    stake.floor = 0;
    if (allocation.kind != Allocation::Kind::floor) continue;
    const int asked = most_of(1, static_cast<int>(safe)) - stake.pinned;
    stake.floor = least_of(clamped(asked, 0, stake.most), room);
    room -= stake.floor;
  }
  return room;
}

/// Sets every `part`, once `best` is known. They sum to `room`, of open_room.
KVAST_HD inline void set_parts(Stake* stakes, int heads, Allocation allocation, int room) {
  const auto alpha = static_cast<double>(allocation.safeguard);
  for (int head = 0; head < heads; ++head) {
    stakes[head].part = stakes[head].floor + stakes[head].best;
    stakes[head].share = multiply(stakes[head].best, 1.0 - alpha) + multiply(alpha, room) / heads;
  }
  if (allocation.kind == Allocation::Kind::blend) apportion(stakes, heads, room);
}

}  // namespace kvast
