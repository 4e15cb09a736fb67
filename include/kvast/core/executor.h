// SPDX-License-Identifier: Apache-2.0
// Parallel loops are the caller's: the library says what may run side by side, an executor runs it.
#pragma once

#include <type_traits>

namespace kvast {

/// Runs `task(data, index)` for every index in [0, count), in any order and on any threads, and
/// returns when all are done. Tasks do not throw and do not nest. Results never depend on
/// `threads`; it is a hint for nobody but the caller. Give neighbouring indices to one thread where
/// possible: they read neighbouring memory.
struct Executor {
  using Task = void (*)(void* data, int index);

  void* context = nullptr;
  void (*run)(void* context, int count, Task task, void* data) = nullptr;

  /// Calls `body(index)` for every index in [0, count).
  template <class Body>
  void parallel_for(int count, Body&& body) const {
    if (run == nullptr || count <= 1) {
      for (int index = 0; index < count; ++index) body(index);
      return;
    }
    using Plain = std::remove_reference_t<Body>;
    run(
        context, count, [](void* data, int index) { (*static_cast<Plain*>(data))(index); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }
};

/// One task after the other on the calling thread; the default.
inline Executor serial() { return {}; }

}  // namespace kvast
