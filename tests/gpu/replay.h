// SPDX-License-Identifier: Apache-2.0
// One step captured in a CUDA graph and replayed, over rows that change.
#pragma once

#include <gtest/gtest.h>

#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast::test {

/// Rows that change from step to step where a captured step reads them, and a history of what it
/// wrote.
class Rows {
 public:
  Rows(int steps, std::size_t row) : row_(row), now_(row), all_(draw(steps * row)) {}
  const float* data() const { return now_.data(); }
  /// Ordered on the tests' stream.
  void bring(int step) { move(now_.data(), all_.data() + static_cast<std::size_t>(step) * row_); }

 private:
  static DeviceVector<float> draw(std::size_t count) {
    Random random(1);
    return on_device(random.normals(count));
  }
  void move(float* to, const float* from) const {
    ASSERT_TRUE(TestDevice::copy(to, from, row_ * sizeof(float), stream()));
  }

  std::size_t row_;
  DeviceVector<float> now_;
  DeviceVector<float> all_;
};

/// Captures what `step()` sends to the tests' stream, and sends it `times` times, `before(time)`
/// and `after(time)` beside each. Returns before the device is done.
template <class Step, class Before, class After>
void replay(int times, Step&& step, Before&& before, After&& after) {
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), cudaSuccess);
  step();
  ASSERT_EQ(cudaStreamEndCapture(stream(), &graph), cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int time = 0; time < times; ++time) {
    before(time);
    ASSERT_EQ(cudaGraphLaunch(executable, stream()), cudaSuccess);
    after(time);
  }
  // the memory of a graph that still runs is kept until it has ended
  (void)cudaGraphExecDestroy(executable);
  (void)cudaGraphDestroy(graph);
}

}  // namespace kvast::test
