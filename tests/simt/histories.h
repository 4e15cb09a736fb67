// SPDX-License-Identifier: Apache-2.0
// Histories of ragged batches, on the device and on the CPU.
#pragma once

#include <vector>

#include "tests/simt/policy_twins.h"

namespace kvast::test {

// a mean over three query heads is rounded: on both sides alike
inline const std::vector<Shape> kShapes{{.query_heads = 4, .heads = 2, .head_dim = 8},
                                        {.query_heads = 6, .heads = 2, .head_dim = 16}};

template <class Policy, class S = Dense<half>>
void check_history(Policy policy, int steps, S storage = {},
                   const std::vector<Shape>& shapes = kShapes) {
  for (const Schedule schedule : kSchedules) {
    begin_schedule(schedule);
    Twins<Policy, S> twins(shapes, policy, storage);
    ASSERT_NO_FATAL_FAILURE(twins.pass({150, 37}, true));
    ASSERT_NO_FATAL_FAILURE(twins.compare());
    const int here = is_first(schedule) ? steps_of(steps) : steps / 4;
    for (int step = 0; step < here; ++step) {
      if (step % 32 == 17) {  // another turn of the chat
        ASSERT_NO_FATAL_FAILURE(twins.pass({30, 12}, true));
      }
      const int first = step % 40 == 7 ? 9 : 1;
      ASSERT_NO_FATAL_FAILURE(twins.pass({first, step % 5 == 0 ? 0 : 1}, false));
      if (step % 16 == 1 || step + 1 == here) {
        ASSERT_NO_FATAL_FAILURE(twins.compare()) << "step " << step;
      }
    }
    ASSERT_EQ(twins.device().counters().missing, 0);
  }
}

}  // namespace kvast::test
