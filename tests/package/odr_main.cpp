// SPDX-License-Identifier: Apache-2.0
// Calls both translation units, perhaps built for different instruction sets, and compares what
// they computed.
#include <cmath>
#include <cstddef>
#include <cstdio>

#include "outcome.h"

Outcome run_in_first();
Outcome run_in_second();

// With an argument, one of the two is built for AVX2; 77 says that this machine cannot run it.
int main(int arguments, char** /*values*/) {
#if defined(__x86_64__)
  if (arguments > 1 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")))
    return 77;
#else
  static_cast<void>(arguments);
#endif
  const Outcome first = run_in_first();
  const Outcome second = run_in_second();
  if (!first.complete || !second.complete || first.outputs.size() != second.outputs.size()) {
    std::puts("a run is incomplete");
    return 1;
  }
  float worst = 0;
  for (std::size_t at = 0; at < first.outputs.size(); ++at) {
    const float difference = std::fabs(first.outputs[at] - second.outputs[at]);
    worst = difference <= worst ? worst : difference;  // NaN becomes the worst
    if (std::isnan(difference)) break;
  }
  const bool same_kept = first.kept == second.kept;
  std::printf("largest difference %g, kept positions %s\n", static_cast<double>(worst),
              same_kept ? "equal" : "DIFFER");
  // Outputs lie in [0, 2]; another order of summation moves them by a few 1e-7.
  return worst <= 1e-5F && same_kept ? 0 : 1;
}
