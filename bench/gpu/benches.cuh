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

/// Ends a bench whose answer was wrong, and the program, once all have run, with a failure.
inline int wrong_answers = 0;
inline void tell_wrong(benchmark::State& state) {
  ++wrong_answers;
  state.SkipWithError("the answer is wrong: nothing was timed");
}

void add_attend_benches();
void add_policy_benches();

}  // namespace kvast::bench
