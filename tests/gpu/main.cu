// SPDX-License-Identifier: Apache-2.0
// Runs the GPU's tests, or says of each that it is skipped, and why; that is a failure where the
// environment has KVAST_REQUIRE_GPU.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

namespace {

/// (GTEST_SKIP in an environment makes googletest 1.12 report that all have passed.)
void skip_all(const char* reason) {
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  int skipped = 0;
  for (int at = 0; at < tests.total_test_suite_count(); ++at) {
    const testing::TestSuite& suite = *tests.GetTestSuite(at);
    for (int one = 0; one < suite.total_test_count(); ++one) {
      const testing::TestInfo& test = *suite.GetTestInfo(one);
      if (!test.should_run()) continue;
      std::printf("[  SKIPPED ] %s.%s (no CUDA device: %s)\n", suite.name(), test.name(), reason);
      ++skipped;
    }
  }
  std::printf("%d of %d tests skipped\n", skipped, tests.test_to_run_count());
  std::exit(std::getenv("KVAST_REQUIRE_GPU") == nullptr ? 0 : 1);
}

class Device : public testing::Environment {
  void SetUp() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) skip_all(cudaGetErrorString(error));
    if (count == 0) skip_all("there is none");
  }
};

}  // namespace

int main(int arguments, char** values) {
  testing::InitGoogleTest(&arguments, values);
  testing::AddGlobalTestEnvironment(new Device);
  const int result = RUN_ALL_TESTS();
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  std::printf("%d of %d tests skipped\n", tests.skipped_test_count(), tests.test_to_run_count());
  return result;
}
