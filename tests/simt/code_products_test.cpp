// SPDX-License-Identifier: Apache-2.0
// CodeProducts::add over as many blocks as a warp may meet in one part: what tensor cores cut off
// at every sum must not add up.
#include "kvast/gpu/code_products.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/simt/backend.h"
#include "tests/simt/tiles.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {
namespace {

constexpr int kDim = 64;

/// Where a token's weight for the `row`-th query stands.
KVAST_HD constexpr int weight_at(int block, int token, int row) {
  return (block * kBlockTokens + token) * gpu::kTileRows + row;
}

/// One warp adds all blocks.
template <class Format>
struct AddBlocks {
  using Products = gpu::CodeProducts<Format, Format, kDim, gpu::kTileRows>;
  using Tile = typename Products::ValueTile;
  static constexpr int kThreads = gpu::kWarp;
  static constexpr std::size_t kSharedBytes = Tile::kBytes + Products::kScratchBytes;
  int blocks = 0;
  std::uint32_t live = 0;
  const std::byte* payloads = nullptr;
  std::int64_t payload_bytes = 0;
  const float* weights = nullptr;
  float* output = nullptr;  ///< [rows, kDim]

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    const int lane = warp.lane();
    float sums[1][Products::kSums] = {};
    Products products;
    for (int at = 0; at < blocks; ++at) {
      Tile::copy(block, payloads + at * payload_bytes, kDim, block.shared());
      block.commit_copies();
      block.template wait_copies<0>();
      warp.sync();
      float of_lane[1][gpu::kTileScores];
      for (int index = 0; index < gpu::kTileScores; ++index)
        of_lane[0][index] =
            weights[weight_at(at, gpu::token_of(lane, index / 2), gpu::row_of(lane, index % 2))];
      products.add(warp, block.shared(), live, of_lane, block.shared() + Tile::kBytes, sums);
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

/// Of a block, around zero.
std::vector<float> normals(Random& random) { return random.normals(kBlockTokens * kDim, 0.58); }
std::vector<float> signs(Random& random) {
  std::vector<float> result(kBlockTokens * kDim);
  for (float& one : result) one = random.chance(0.5) ? 1.0F : -1.0F;
  return result;
}

/// A pattern times a token's own factor: two factors, and so two scales, which nearly cancel.
std::vector<float> two_factors(Random& random) {
  std::vector<float> result(kBlockTokens * kDim);
  for (std::size_t at = 0; at < result.size(); at += kDim) {
    const float factor = random.chance(0.565) ? 1.0F : -1.3F;
    for (std::size_t channel = 0; channel < kDim; ++channel)
      result[at + channel] = channel % 2 == 0 ? factor : -factor;
  }
  return result;
}

/// Adds `blocks` blocks of values(random); weights are weight(random).
template <class Format, class Weight>
void check(int blocks, double tolerance, const Weight& weight,
           std::vector<float> (*values)(Random&) = normals, std::uint32_t live = ~0U) {
  const gpu::PayloadRows<Format, gpu::Part::values> layout{kDim};
  const std::int64_t bytes = layout.bytes();
  DeviceVector<gpu::Chunk> memory(static_cast<std::size_t>(blocks * bytes) / sizeof(gpu::Chunk));
  auto* payloads = reinterpret_cast<std::byte*>(memory.data());
  DeviceVector<float> weights(static_cast<std::size_t>(weight_at(blocks, 0, 0)));
  Random random(3);
  for (std::size_t at = 0; at < weights.size(); ++at) {
    const bool lives = live >> at / gpu::kTileRows % kBlockTokens & 1U;
    weights[at] = lives ? static_cast<float>(weight(random)) : 0.0F;
  }
  std::vector<double> wanted(gpu::kTileRows * kDim);
  for (int block = 0; block < blocks; ++block) {
    std::byte* to = payloads + block * bytes;
    const std::vector<float> numbers = values(random);
    gpu::from_tiles<Format, gpu::Part::values>(
        tiles_of<Format, gpu::Part::values>(numbers, kDim).data(), kDim, to);
    for (int token = 0; token < kBlockTokens; ++token) {
      const float* of_token = weights.data() + weight_at(block, token, 0);
      for (int channel = 0; channel < kDim; ++channel) {
        const double number = static_cast<double>(layout.number(to, token, channel));
        for (int row = 0; row < gpu::kTileRows; ++row)
          wanted[static_cast<std::size_t>(row * kDim + channel)] +=
              static_cast<double>(of_token[row]) * number;
      }
    }
  }
  DeviceVector<float> output(wanted.size());
  const AddBlocks<Format> kernel{blocks, live, payloads, bytes, weights.data(), output.data()};
  const Status status = TestDevice::launch(kernel, {1, kernel.kSharedBytes}, stream());
  ASSERT_TRUE(status) << status.message();
  wait();
  EXPECT_LE(relative_error(output.data(), wanted), tolerance);
}

TYPED_TEST(CodeProductsSums, DoNotDriftOverManyBlocks) {
  check<TypeParam>(2048, 2e-3, [](Random& random) { return 0.25 + 0.75 * random.uniform(); });
}

/// As the softmax of logits with a standard deviation of 2 leaves them: the few large weights of a
/// fragment decide what tensor cores cut off the many small ones. That adds up, while values grow
/// with the root of their number only.
TYPED_TEST(CodeProductsSums, KeepSmallWeightsBesideLargeOnes) {
  constexpr double kTolerance = gpu::code_bits<TypeParam>() <= 4 ? 8e-4 : 2e-3;
  check<TypeParam>(4096, kTolerance, [](Random& random) {
    return std::min(std::exp(2.0 * random.normal() - 9.0), 1.0);
  });
}

/// Then rounding a weight times a scale errs alike for all tokens, while values of either sign
/// nearly cancel. Blocks enough that it would show: without what gives it back 4 bits err by 6.5e-2
/// and 2 bits by 4.2e-2.
TYPED_TEST(CodeProductsSums, GiveBackWhatRoundingTakesFromAllAlike) {
  for (const int blocks : {8, 1024}) {
    for (const double weight : {1.0, 0.05, 0.0297})
      check<TypeParam>(
          blocks, 2e-3, [weight](Random&) { return weight; }, signs);
  }
}

/// Then a weight times each of a few scales errs in its own way, alike wherever they recur.
TYPED_TEST(CodeProductsSums, GiveBackWhatRoundingTakesFromScalesThatRecur) {
  for (const int blocks : {32, 1024})
    check<TypeParam>(
        blocks, 1e-3, [](Random&) { return 0.0297; }, two_factors);
}

/// Scales of small values are lifted, or their products with small weights would be subnormal: 8
/// bits then err by 3e-3.
std::vector<float> small_factors(Random& random) {
  std::vector<float> result = two_factors(random);
  for (float& one : result) one *= 0.03F;
  return result;
}
TYPED_TEST(CodeProductsSums, KeepSmallWeightsOfSmallValuesBesideASink) {
  for (const double weight : {1.1e-4, 3.1e-5}) {
    int sinks = gpu::kTileRows;  // the first token's weight is 1 in each row
    check<TypeParam>(
        256, 1e-3, [&](Random&) { return sinks-- > 0 ? 1.0 : weight; }, small_factors);
  }
}

/// Values that are large and dead do not decide how exact the others are.
template <int kDivisor>
std::vector<float> one_huge_token(Random& random) {
  std::vector<float> result = normals(random);
  for (float& one : result) one /= kDivisor;
  std::fill_n(result.begin() + 5 * kDim, kDim / 2, 3e4F);
  return result;
}
TYPED_TEST(CodeProductsSums, DeadTokensTakeNoPrecision) {
  if (std::is_same_v<TypeParam, Fp8<E4M3>>)
    GTEST_SKIP() << "3e4 is beyond E4M3, which has no scales";
  const auto weight = [](Random& random) { return 1e-4 * random.uniform(); };
  check<TypeParam>(8, 1e-3, weight, one_huge_token<1>, ~(1U << 5U));
  // lifted as the others are, its scale would be infinite, and infinity times 0 is no number
  check<TypeParam>(8, 2e-2, weight, one_huge_token<1000>, ~(1U << 5U));
}

/// One warp multiplies queries with the keys of a block.
template <class Format>
struct ScoreBlock {
  using Products = gpu::CodeProducts<Format, Format, kDim, gpu::kTileRows>;
  using Tile = typename Products::KeyTile;
  static constexpr int kThreads = gpu::kWarp;
  static constexpr std::size_t kSharedBytes = Tile::kBytes + gpu::kTileRows * kDim * sizeof(half);
  const std::byte* payload = nullptr;
  const float* queries = nullptr;  ///< [rows, kDim]
  float* output = nullptr;         ///< [rows, 32]

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const auto warp = block.warp();
    const int lane = warp.lane();
    std::byte* of_codes = block.shared() + Tile::kBytes;
    Tile::copy(block, payload, kDim, block.shared());
    block.commit_copies();
    block.template wait_copies<0>();
    for (int at = lane; at < gpu::kTileRows * kDim; at += gpu::kWarp)
      Products::query_number(of_codes, at / kDim, at % kDim) = to_half(queries[at]);
    warp.sync();
    float scores[1][gpu::kTileScores];
    Products::scores(warp, block.shared(), of_codes, scores);
    for (int index = 0; index < gpu::kTileScores; ++index)
      output[gpu::row_of(lane, index % 2) * kBlockTokens + gpu::token_of(lane, index / 2)] =
          scores[0][index];
  }
};

/// Where one token decides a channel's range, the codes of all others are alike: what rounding
/// takes from queries times scales must not be taken for that of codes in the middle.
TYPED_TEST(CodeProductsSums, ScoresBesideATokenThatIsLoud) {
  Random random(8);
  const gpu::PayloadRows<TypeParam, gpu::Part::keys> layout{kDim};
  for (int draw = 0; draw < 6; ++draw) {
    std::vector<float> numbers = random.normals(kBlockTokens * kDim);
    for (int channel = 0; channel < kDim; ++channel)
      numbers[static_cast<std::size_t>(7 * kDim + channel)] = random.chance(0.5) ? 8.0F : -8.0F;
    DeviceVector<gpu::Chunk> memory(static_cast<std::size_t>(layout.bytes()) / sizeof(gpu::Chunk));
    auto* payload = reinterpret_cast<std::byte*>(memory.data());
    gpu::from_tiles<TypeParam, gpu::Part::keys>(
        tiles_of<TypeParam, gpu::Part::keys>(numbers, kDim).data(), kDim, payload);
    DeviceVector<float> queries(gpu::kTileRows * kDim);
    for (float& one : queries) one = to_float(to_half(static_cast<float>(16.0 * random.normal())));
    std::vector<double> wanted(gpu::kTileRows * kBlockTokens);
    for (int row = 0; row < gpu::kTileRows; ++row) {
      for (int token = 0; token < kBlockTokens; ++token) {
        double& logit = wanted[static_cast<std::size_t>(row * kBlockTokens + token)];
        for (int channel = 0; channel < kDim; ++channel)
          logit += static_cast<double>(queries[static_cast<std::size_t>(row * kDim + channel)]) *
                   static_cast<double>(layout.number(payload, token, channel));
      }
    }
    DeviceVector<float> output(wanted.size());
    const ScoreBlock<TypeParam> kernel{payload, queries.data(), output.data()};
    ASSERT_TRUE(TestDevice::launch(kernel, {1, kernel.kSharedBytes}, stream()));
    wait();
    EXPECT_LE(relative_error(output.data(), wanted), 2e-5);
  }
}

}  // namespace
}  // namespace kvast::test
