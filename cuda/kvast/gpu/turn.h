// SPDX-License-Identifier: Apache-2.0
// What a commit does to a head: how the kernels of an eviction tell each other.
#pragma once

namespace kvast::gpu {

/// Of one (layer, sequence, head), in device memory: [layers, most tables]. Zeroes are a head that
/// nothing has happened to.
struct Turn {
  bool acts = false;   ///< the head's ranks were filled, and tokens may go
  int target = -1;     ///< tokens to come down to; negative: whatever the ranks say
  int room = -1;       ///< tokens that may stay besides pinned ones; negative: see target
  int acted = 0;       ///< positions there were when the policy last acted without a budget
  bool chose = false;  ///< the policy looked at the head once, and its choice stands (HeadChoices)
};

}  // namespace kvast::gpu
