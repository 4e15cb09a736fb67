// SPDX-License-Identifier: Apache-2.0
// The smallest program of a user: it must build and run from an installed package and from a source
// tree.
#include <cmath>
#include <cstdio>

#include "steps.h"

int main() {
  const Outcome outcome = run_steps();
  std::printf("%zu outputs, %zu positions kept\n", outcome.outputs.size(), outcome.kept.size());
  for (const float number : outcome.outputs) {
    if (!std::isfinite(number)) return 1;
  }
  return outcome.complete ? 0 : 1;
}
