// SPDX-License-Identifier: Apache-2.0
// An executor on OpenMP, for programs that are compiled with it.
#pragma once

#if defined(_OPENMP)

#include <cstdint>

#include "kvast/core/executor.h"

namespace kvast {

/// Runs tasks on `threads` OpenMP threads (0: OpenMP's own choice).
inline Executor openmp(int threads) {
  return {.context = reinterpret_cast<void*>(static_cast<std::intptr_t>(threads)),
          .run = [](void* context, int count, Executor::Task task, void* data) {
            const auto asked = static_cast<int>(reinterpret_cast<std::intptr_t>(context));
            if (asked > 0) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(asked)
              for (int index = 0; index < count; ++index) task(data, index);
            } else {
#pragma omp parallel for schedule(dynamic, 1)
              for (int index = 0; index < count; ++index) task(data, index);
            }
          }};
}

}  // namespace kvast

#endif
