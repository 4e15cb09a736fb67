// SPDX-License-Identifier: Apache-2.0
// The contract of a storage: which format keys and values have, sealed and while they wait.
#pragma once

#include <concepts>

#include "kvast/core/basis.h"
#include "kvast/core/channels.h"
#include "kvast/core/error.h"
#include "kvast/host/codec.h"

namespace kvast {

/// How one layer keeps its tokens. Null dense formats: the engine keeps keys and values itself
/// (External).
struct StoragePlan {
  const Codec* dense_keys = nullptr;  ///< of tokens as they arrive
  const Codec* dense_values = nullptr;
  const Codec* coded_keys = nullptr;  ///< of sealed blocks; null: nothing is sealed
  const Codec* coded_values = nullptr;
  int residual = 0;     ///< newest tokens that stay dense under a coded storage
  int first_coded = 0;  ///< positions below it are never sealed
  BasisPlan key_basis{};
  BasisPlan value_basis{};
  ChannelPlan channels{};    ///< of sealed keys
  bool before_rope = false;  ///< the key basis is of keys that the model has not rotated yet
  bool folded = false;       ///< attend's output stays in the value basis
};

/// A storage is a small value: `plan<Simd>(layer)` for each layer, `validate(caller)` for its
/// settings, and where not every model will do `validate_shape(shape, caller)`.
template <class Candidate>
concept Storage = requires(const Candidate storage, int layer, Caller caller) {
  { storage.template plan<Simd>(layer) } -> std::same_as<StoragePlan>;
  storage.validate(caller);
};

}  // namespace kvast
