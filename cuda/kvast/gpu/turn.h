// SPDX-License-Identifier: Apache-2.0
// What a commit is going to do to a head: how the kernels of an eviction tell each other.
#pragma once

namespace kvast::gpu {

/// Of one (layer, sequence, head), in device memory: [layers, most tables].
struct Turn {
  bool acts = false;  ///< the head's ranks were filled, and tokens may go
  int target = -1;    ///< tokens to come down to; negative: whatever the ranks say
  int room = -1;      ///< tokens that may stay besides pinned ones; negative: see target
};

}  // namespace kvast::gpu
