// SPDX-License-Identifier: Apache-2.0
// External: the engine keeps keys and values; kvast keeps positions and policy state, and says what
// to move.
#pragma once

#include "kvast/storage/storage.h"

namespace kvast {

/// For engines with their own attention kernel or K/V memory. A pass is `append` (keys only where
/// the policy reads norms), `observe` (the kernel's weights, where the policy reads attention),
/// `commit`; then `moves(layer, head)` says which slots to overwrite by which, and slots from
/// `tokens(layer, head)` on are free.
struct External {
  template <class Simd>
  StoragePlan plan(int) const {
    return {};
  }
  void validate(Caller) const {}
};
static_assert(Storage<External>);

}  // namespace kvast
