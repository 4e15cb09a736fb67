// SPDX-License-Identifier: Apache-2.0
// CodeProducts::add over as many blocks as a warp may meet in one part: what tensor cores cut off
// at every sum must not add up.
#include "kvast/gpu/code_products.cuh"

#include <gtest/gtest.h>

#include "tests/simt/backend.h"
#include "tests/simt/tiles.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {
namespace {

constexpr int kDim = 64;
constexpr int kBlocks = 2048;

/// Of the `row`-th query.
KVAST_HD constexpr float weight_of(int block, int token, int row) {
  const auto mixed = static_cast<std::uint32_t>((block * kBlockTokens + token) * 8 + row);
  return 0.25F + 0.75F * static_cast<float>((mixed * 2654435761U >> 12U) % 1024U) / 1024.0F;
}

/// One warp adds all blocks.
template <class Format>
struct AddBlocks {
  using Products = gpu::CodeProducts<Format, Format, kDim, gpu::kTileRows>;
  using Tile = typename Products::ValueTile;
  static constexpr int kThreads = gpu::kWarp;
  static constexpr std::size_t kSharedBytes = Tile::kBytes + Products::kScratchBytes;
  const std::byte* payloads = nullptr;
  std::int64_t payload_bytes = 0;
  float* output = nullptr;  ///< [rows, kDim]

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    const int lane = warp.lane();
    float sums[1][Products::kSums] = {};
    Products products;
    for (int at = 0; at < kBlocks; ++at) {
      Tile::copy(block, payloads + at * payload_bytes, kDim, block.shared());
      block.commit_copies();
      block.template wait_copies<0>();
      warp.sync();
      float weights[1][gpu::kTileScores];
      for (int index = 0; index < gpu::kTileScores; ++index)
        weights[0][index] =
            weight_of(at, gpu::token_of(lane, index / 2), gpu::row_of(lane, index % 2));
      products.add(warp, block.shared(), weights, block.shared() + Tile::kBytes, sums);
      warp.sync();
    }
    products.finish(warp, sums);
    for (int index = 0; index < kDim / 4; ++index) {
      const int channel = index / 4 * 16 + lane / 4 + index / 2 % 2 * 8;
      output[gpu::row_of(lane, index % 2) * kDim + channel] = sums[0][index];
    }
  }
};

template <class Format>
class CodeProductsSums : public testing::Test {};
using Formats = testing::Types<Int<8>, Int<4>, Int<2>, Fp8<E4M3>>;
TYPED_TEST_SUITE(CodeProductsSums, Formats);

TYPED_TEST(CodeProductsSums, DoNotDriftOverManyBlocks) {
  const gpu::PayloadRows<TypeParam, gpu::Part::values> layout{kDim};
  const std::int64_t bytes = layout.bytes();
  DeviceVector<gpu::Chunk> memory(static_cast<std::size_t>(kBlocks * bytes) / sizeof(gpu::Chunk));
  auto* payloads = reinterpret_cast<std::byte*>(memory.data());
  Random random(3);
  std::vector<double> wanted(gpu::kTileRows * kDim);
  for (int block = 0; block < kBlocks; ++block) {
    std::byte* to = payloads + block * bytes;
    const std::vector<float> numbers = random.normals(kBlockTokens * kDim, 0.58);
    gpu::from_tiles<TypeParam, gpu::Part::values>(
        tiles_of<TypeParam, gpu::Part::values>(numbers, kDim).data(), kDim, to);
    for (int token = 0; token < kBlockTokens; ++token) {
      for (int channel = 0; channel < kDim; ++channel) {
        const double number = static_cast<double>(layout.number(to, token, channel));
        for (int row = 0; row < gpu::kTileRows; ++row)
          wanted[static_cast<std::size_t>(row * kDim + channel)] +=
              static_cast<double>(weight_of(block, token, row)) * number;
      }
    }
  }
  DeviceVector<float> output(wanted.size());
  const AddBlocks<TypeParam> kernel{payloads, bytes, output.data()};
  const Status status = TestDevice::launch(kernel, {1, kernel.kSharedBytes}, stream());
  ASSERT_TRUE(status) << status.message();
  wait();
  EXPECT_LE(relative_error(output.data(), wanted), 2e-3);
}

}  // namespace
}  // namespace kvast::test
