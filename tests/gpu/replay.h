// SPDX-License-Identifier: Apache-2.0
// One step captured in a CUDA graph and replayed.
#pragma once

#include <gtest/gtest.h>

#include "tests/simt/backend.h"

namespace kvast::test {

/// Captures what `step()` sends to the tests' stream, and sends it `times` times. Returns before
/// the device is done.
template <class Step>
void replay(int times, Step&& step) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  step();
  ASSERT_EQ(cudaStreamEndCapture(stream(), &graph), cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int time = 0; time < times; ++time)
    ASSERT_EQ(cudaGraphLaunch(executable, stream()), cudaSuccess);
  // the memory of a graph that still runs is kept until it has ended
  (void)cudaGraphExecDestroy(executable);
  (void)cudaGraphDestroy(graph);
}

}  // namespace kvast::test
