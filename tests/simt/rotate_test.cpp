// SPDX-License-Identifier: Apache-2.0
// A warp's rotation gives the bits of core/rotation.h.
#include "kvast/gpu/rotate.cuh"

#include <gtest/gtest.h>

#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast::gpu {
namespace {

template <int kCount>
struct Turn {
  static constexpr int kThreads = kWarp;
  Rotation rotation{};
  const float* from = nullptr;
  float* rotated = nullptr;
  float* back = nullptr;

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    LaneVector<kCount> vector;
    vector.each(warp.lane(), rotation.dim, [&](int dim, float& number) { number = from[dim]; });
    vector.rotate(warp, rotation);
    vector.each(warp.lane(), rotation.dim, [&](int dim, float number) { rotated[dim] = number; });
    vector.undo(warp, rotation);
    vector.each(warp.lane(), rotation.dim, [&](int dim, float number) { back[dim] = number; });
  }
};

template <int kCount>
void check(int dim) {
  test::Random random(3);
  const std::vector<float> numbers = random.normals(static_cast<std::size_t>(dim));
  const auto from = test::on_device(numbers);
  test::DeviceVector<float> rotated(numbers.size());
  test::DeviceVector<float> back(numbers.size());
  const Rotation rotation = Rotation::of(dim, 9);
  ASSERT_TRUE(test::TestDevice::launch(
      Turn<kCount>{rotation, from.data(), rotated.data(), back.data()}, {1, 0}, test::stream()));
  test::wait();
  std::vector<float> wanted = numbers;
  rotation.apply(wanted.data());
  for (std::size_t at = 0; at < wanted.size(); ++at) ASSERT_EQ(rotated[at], wanted[at]) << dim;
  rotation.undo(wanted.data());
  for (std::size_t at = 0; at < wanted.size(); ++at) ASSERT_EQ(back[at], wanted[at]) << dim;
}

TEST(Rotate, SameBitsAsTheProcessor) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    for (const int dim : {8, 24, 32, 40, 64}) check<2>(dim);
    for (const int dim : {72, 96}) check<3>(dim);
    for (const int dim : {8, 96, 128, 192, 320, 512}) check<16>(dim);
  }
}

}  // namespace
}  // namespace kvast::gpu
