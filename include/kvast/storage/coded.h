// SPDX-License-Identifier: Apache-2.0
// What all storages with codes share: f16 while a token waits, and what may stay f16 for good.
#pragma once

#include "kvast/core/sets.h"
#include "kvast/core/shape.h"
#include "kvast/format/floats.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// What a storage with codes leaves in f16: the first tokens of the sequence, which many heads
/// attend to, and layers that bear errors badly.
struct KeepDense {
  int tokens = 0;  ///< positions below it
  LayerSet layers{};
};

namespace detail {

/// Keys in one format and values in another, behind a residual in f16.
template <class Keys, class Values, class Simd>
StoragePlan coded_plan(int layer, int residual, const KeepDense& keep) {
  StoragePlan plan{.dense_keys = &kCodec<F16, Simd>, .dense_values = &kCodec<F16, Simd>};
  if (keep.layers.contains(layer)) return plan;
  plan.coded_keys = &kCodec<Keys, Simd>;
  plan.coded_values = &kCodec<Values, Simd>;
  plan.residual = residual;
  plan.first_coded = keep.tokens;
  return plan;
}

inline void check_coded(const char* storage, int residual, const KeepDense& keep, Caller caller) {
  require(residual >= 0 && residual <= (1 << 20), caller, storage, ".residual is ", residual,
          ", must lie in [0, 2^20]");
  require(keep.tokens >= 0 && keep.tokens <= (1 << 20), caller, storage, ".keep.tokens is ",
          keep.tokens, ", must lie in [0, 2^20]");
}

inline void check_layers(const char* storage, const KeepDense& keep, const ShapeList& shape,
                         Caller caller) {
  require(keep.layers.end() <= shape.layers(), caller, storage, ".keep.layers has layer ",
          keep.layers.end() - 1, ", the model has ", shape.layers(), " layers");
}

}  // namespace detail
}  // namespace kvast
