// SPDX-License-Identifier: Apache-2.0
// What a run of the cache produced; free of the library's headers, so that a third party can
// compare two runs.
#pragma once

#include <vector>

struct Outcome {
  std::vector<float> outputs;  // of every step and layer
  std::vector<int> kept;       // positions of every layer and head
  bool complete = false;
};
