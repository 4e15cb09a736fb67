// SPDX-License-Identifier: Apache-2.0
// In which order a head's summaries are merged: the same on every backend, so that rounding is too.
#pragma once

#include "kvast/core/host_device.h"

namespace kvast {

/// `tokens` in order of position, in at most 128 runs of neighbours: the tokens of a run are merged
/// from the first one on, then the runs are. Threads may share the runs out.
struct Runs {
  static constexpr int kMost = 128;
  int tokens = 0;

  KVAST_HD constexpr int length() const { return (tokens + kMost - 1) / kMost; }
  KVAST_HD constexpr int count() const {
    return tokens == 0 ? 0 : (tokens + length() - 1) / length();
  }
  KVAST_HD constexpr int begin(int run) const { return run * length(); }
  KVAST_HD constexpr int end(int run) const {
    return begin(run) + length() < tokens ? begin(run) + length() : tokens;
  }
};

}  // namespace kvast
