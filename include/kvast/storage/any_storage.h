// SPDX-License-Identifier: Apache-2.0
// AnyStorage: the storage as a value, for programs that learn it at run time.
#pragma once

#include <concepts>
#include <functional>

#include "kvast/core/shape.h"
#include "kvast/storage/storage.h"

namespace kvast {

/// Holds a copy of any storage. KVCache<Policy, AnyStorage> is one instantiation per policy for all
/// storages: twenty policies times fifteen storages compile as thirty-five. Costs two indirect
/// calls per layer at construction, and nothing after.
template <class Arch>
class BasicAnyStorage {
 public:
  /// Implicit, as a storage is what it holds.
  template <Storage Held>
  requires(!std::same_as<Held, BasicAnyStorage>) BasicAnyStorage(Held storage)
      : plan_([storage](int layer) { return storage.template plan<Arch>(layer); }),
        validate_([storage](Caller caller) { storage.validate(caller); }),
        validate_shape_([storage](const ShapeList& shape, Caller caller) {
          if constexpr (requires { storage.validate_shape(shape, caller); })
            storage.validate_shape(shape, caller);
        }) {}

  template <class Simd>
  StoragePlan plan(int layer) const {
    static_assert(std::same_as<Simd, Arch>, "AnyStorage holds codecs of one instruction set");
    return plan_(layer);
  }
  void validate(Caller caller) const { validate_(caller); }
  void validate_shape(const ShapeList& shape, Caller caller) const {
    validate_shape_(shape, caller);
  }

 private:
  std::function<StoragePlan(int)> plan_;
  std::function<void(Caller)> validate_;
  std::function<void(const ShapeList&, Caller)> validate_shape_;
};

using AnyStorage = BasicAnyStorage<Simd>;

}  // namespace kvast
