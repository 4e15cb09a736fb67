// SPDX-License-Identifier: Apache-2.0
// What the files of bench-gpu share: one timer, the bandwidth of this run, and their lists.
#pragma once

#include "bench/gpu/timer.cuh"

namespace kvast::bench {

inline Timer& timer() {
  static Timer one;
  return one;
}
inline const Bandwidth& bandwidth() {
  static const Bandwidth measured = Bandwidth::measure(timer());
  return measured;
}

void add_attend_benches();
void add_policy_benches();

}  // namespace kvast::bench
