// SPDX-License-Identifier: Apache-2.0
// The simt runner itself: what kernels do in it, and that their mistakes are found.
#include "tests/simt/run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace kvast::test {
namespace {

/// A kernel from a lambda, which must capture pointers and numbers alone.
template <int kCount, class Body>
struct Lambda {
  static constexpr int kThreads = kCount;
  Body body;
  template <class Block>
  void operator()(Block& block) const {
    body(block);
  }
};
template <int kCount, class Body>
Lambda<kCount, Body> kernel(Body body) {
  return {body};
}

template <class Kernel>
std::string mistake(const Kernel& kernel, gpu::Grid grid = {}) {
  for (const Schedule schedule : kSchedules) {
    std::string text;
    try {
      run_kernel(kernel, grid, schedule);
    } catch (const SimtError& error) {
      text = error.what();
    }
    if (text.empty() || schedule.order == Order::random) return text;
  }
  return {};
}

TEST(Simt, BlocksSumThroughSharedMemory) {
  constexpr int kBlocks = 200;
  for (const Schedule schedule : kSchedules) {
    std::vector<int> sums(kBlocks);
    int* out = sums.data();
    run_kernel(kernel<128>([out](auto& block) {
                 int* shared = reinterpret_cast<int*>(block.shared());
                 const auto warp = block.warp();
                 const int sum = gpu::warp_sum(warp, block.thread() + block.index());
                 if (warp.lane() == 0) shared[block.warp_index()] = sum;
                 block.sync();
                 if (block.thread() == 0) {
                   for (int warp_at = 0; warp_at < block.warps(); ++warp_at)
                     out[block.index()] += shared[warp_at];
                 }
               }),
               {.blocks = kBlocks, .shared_bytes = 4 * sizeof(int)}, schedule);
    for (int block = 0; block < kBlocks; ++block)
      ASSERT_EQ(sums[static_cast<std::size_t>(block)], 127 * 64 + 128 * block);
  }
}

TEST(Simt, LanesShowEachOtherTheirValues) {
  for (const Schedule schedule : kSchedules) {
    run_kernel(kernel<64>([](auto& block) {
                 const auto warp = block.warp();
                 const int lane = warp.lane();
                 EXPECT_EQ(warp.shuffle(10 * lane, (lane + 5) % 32), 10 * ((lane + 5) % 32));
                 EXPECT_EQ(warp.shuffle_xor(1.5F * static_cast<float>(lane), 8),
                           1.5F * static_cast<float>(lane ^ 8));
                 EXPECT_EQ(warp.shuffle_up(lane, 3), lane < 3 ? lane : lane - 3);
                 EXPECT_EQ(warp.ballot(lane % 3 == 0), 0x49249249U);
                 EXPECT_EQ(warp.largest(static_cast<unsigned>(lane * 7 % 32)), 31U);
                 EXPECT_EQ(gpu::warp_max(warp, lane * 7 % 32), 31);
                 EXPECT_EQ(gpu::warp_scan(warp, lane), lane * (lane + 1) / 2);
               }),
               {}, schedule);
  }
}

TEST(Simt, MatricesAreMultiplied) {
  // a [16, 16], b [16, 8] of small numbers; results are exact
  float got[16][8];
  std::uint16_t left[16][16];
  std::uint16_t right[16][8];
  const auto a_at = [](int row, int depth) {
    return static_cast<float>((row * 5 + depth) % 7 - 3);
  };
  const auto b_at = [](int depth, int column) {
    return static_cast<float>((depth + 3 * column) % 5 - 2);
  };
  for (int row = 0; row < 16; ++row) {
    for (int at = 0; at < 16; ++at) left[row][at] = to_half(a_at(row, at)).bits;
    for (int at = 0; at < 8; ++at) right[row][at] = to_half(b_at(row, at)).bits;
  }
  float(*out)[8] = got;
  const std::uint16_t(*a_from)[16] = left;
  const std::uint16_t(*b_from)[8] = right;
  for (const Schedule schedule : kSchedules) {
    std::memset(got, 0, sizeof got);
    run_kernel(kernel<32>([out, a_from, b_from](auto& block) {
                 const auto warp = block.warp();
                 const int lane = warp.lane();
                 auto* a_shared = reinterpret_cast<std::uint16_t*>(block.shared());
                 auto* b_shared = a_shared + 16 * 16;
                 std::memcpy(a_shared + lane * 8, &a_from[lane / 2][lane % 2 * 8], 16);
                 if (lane < 16) std::memcpy(b_shared + lane * 8, b_from[lane], 16);
                 warp.sync();
                 std::uint32_t a[4];
                 std::uint32_t b[4];
                 warp.load_matrices(a, a_shared + (lane % 16) * 16 + lane / 16 * 8);
                 warp.load_matrices_turned(b, b_shared + lane % 16 * 8);
                 float sum[4] = {};
                 warp.multiply_f16(sum, a, b[0], b[1]);
                 for (int at = 0; at < 4; ++at)
                   out[lane / 4 + at / 2 * 8][lane % 4 * 2 + at % 2] = sum[at];
               }),
               {.shared_bytes = 1024}, schedule);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float wanted = 0;
        for (int at = 0; at < 16; ++at) wanted += a_at(row, at) * b_at(at, column);
        ASSERT_EQ(got[row][column], wanted) << row << ' ' << column;
      }
    }
  }
}

TEST(Simt, BytesAreMultiplied) {
  std::int32_t got[16][8];
  std::int32_t(*out)[8] = got;
  const auto a_at = [](int row, int depth) { return (row * 37 + depth * 11) % 255 - 127; };
  const auto b_at = [](int depth, int column) { return (depth * 13 + column * 91) % 255 - 127; };
  run_kernel(kernel<32>([=](auto& block) {
               const auto warp = block.warp();
               const int row = warp.lane() / 4;
               const int depth = 4 * (warp.lane() % 4);
               const auto pack = [](auto at) {
                 std::uint32_t word = 0;
                 for (int byte = 0; byte < 4; ++byte)
                   word |= static_cast<std::uint32_t>(at(byte) & 255) << 8 * byte;
                 return word;
               };
               std::uint32_t a[4];
               for (int part = 0; part < 4; ++part)
                 a[part] = pack([&](int byte) {
                   return a_at(row + part % 2 * 8, depth + byte + part / 2 * 16);
                 });
               std::int32_t sum[4] = {};
               warp.multiply_s8(sum, a, pack([&](int byte) { return b_at(depth + byte, row); }),
                                pack([&](int byte) { return b_at(depth + byte + 16, row); }));
               for (int at = 0; at < 4; ++at) out[row + at / 2 * 8][depth / 2 + at % 2] = sum[at];
             }),
             {});
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      int wanted = 0;
      for (int at = 0; at < 32; ++at) wanted += a_at(row, at) * b_at(at, column);
      ASSERT_EQ(got[row][column], wanted);
    }
  }
}

TEST(Simt, CopiesArriveWhenTheyWereWaitedFor) {
  std::vector<float> source(64);
  std::iota(source.begin(), source.end(), 1.0F);
  const float* from = source.data();
  run_kernel(kernel<32>([from](auto& block) {
               auto* shared = reinterpret_cast<float*>(block.shared());
               const int lane = block.thread();
               block.template copy_async<4>(shared + lane, from + lane);
               block.commit_copies();
               block.template copy_async<4>(shared + 32 + lane, from + 32 + lane, lane != 3);
               block.commit_copies();
               EXPECT_TRUE(std::isnan(shared[lane]));
               block.template wait_copies<1>();
               EXPECT_EQ(shared[lane], from[lane]);
               EXPECT_TRUE(std::isnan(shared[32 + lane]));
               block.template wait_copies<0>();
               block.sync();
               EXPECT_EQ(shared[32 + (lane + 1) % 32],
                         (lane + 1) % 32 == 3 ? 0.0F : from[32 + (lane + 1) % 32]);
             }),
             {.shared_bytes = 256});
}

/// A copy over what other lanes still read: the orders do not agree about it.
TEST(Simt, CopiesMayLandBeforeTheyAreWaitedFor) {
  std::vector<float> source(32, 7.0F);
  const float* from = source.data();
  const auto read = [from](Schedule schedule) {
    std::vector<float> results(32);
    float* got = results.data();
    run_kernel(kernel<32>([from, got](auto& block) {
                 auto* shared = reinterpret_cast<float*>(block.shared());
                 const int lane = block.thread();
                 shared[lane] = 1.0F;
                 block.warp().sync();
                 block.template copy_async<4>(shared + lane, from + lane);
                 block.commit_copies();
                 got[lane] = shared[(lane + 1) % 32];
               }),
               {.shared_bytes = 128}, schedule);
    return results;
  };
  EXPECT_EQ(read(kForward), std::vector<float>(32, 1.0F));
  EXPECT_NE(read(kReverse), read(kForward));
  EXPECT_NE(read(kRandom), read(kForward));
}

TEST(Simt, AtomicsCount) {
  for (const Schedule schedule : kSchedules) {
    int count = 0;
    unsigned seen = 0;
    int* counter = &count;
    unsigned* bits = &seen;
    run_kernel(kernel<64>([=](auto& block) {
                 block.fetch_add(counter, 1);
                 block.fetch_or(bits, 1U << block.thread() % 32);
                 block.fence();
                 block.compare_exchange(bits, gpu::kAllLanes, 7U);
               }),
               {.blocks = 2}, schedule);
    EXPECT_EQ(count, 128);
  }
}

TEST(Simt, MissingBarrierChangesBits) {
  const auto last_seen = [](Schedule schedule) {
    int seen = 0;
    int* out = &seen;
    run_kernel(kernel<64>([out](auto& block) {
                 int* shared = reinterpret_cast<int*>(block.shared());
                 if (block.thread() == 63) shared[0] = 5;
                 if (block.thread() == 0) *out = shared[0];  // no sync() between
               }),
               {.shared_bytes = 4}, schedule);
    return seen;
  };
  EXPECT_NE(last_seen({Order::forward, 0}), last_seen({Order::reverse, 0}));
}

TEST(Simt, BarrierInABranchIsFound) {
  const std::string text = mistake(kernel<64>([](auto& block) {
    if (block.thread() < 32) {
      block.sync();
    } else {
      block.sync();
    }
  }));
  EXPECT_NE(text.find("block 0: threads diverge"), std::string::npos) << text;
  EXPECT_NE(text.find("sync of the block at"), std::string::npos) << text;
}

TEST(Simt, BarrierThatSomeNeverReachIsFound) {
  const std::string text = mistake(kernel<64>([](auto& block) {
    if (block.thread() == 40) return;
    block.sync();
  }));
  EXPECT_NE(text.find("threads wait for ever: 63 in sync of the block"), std::string::npos) << text;
  EXPECT_NE(text.find("1 have ended"), std::string::npos) << text;
}

TEST(Simt, ShuffleOfHalfAWarpIsFound) {
  const std::string text = mistake(kernel<32>([](auto& block) {
    if (block.thread() < 16) block.warp().shuffle(1, 0);
  }));
  EXPECT_NE(text.find("16 in shuffle"), std::string::npos) << text;
}

TEST(Simt, DifferentOperationsOfOneWarpAreFound) {
  const std::string text = mistake(kernel<32>([](auto& block) {
    if (block.thread() < 16) {
      block.warp().shuffle(1, 0);
    } else {
      block.warp().ballot(true);
    }
  }));
  EXPECT_NE(text.find("threads diverge"), std::string::npos) << text;
}

TEST(Simt, WarpsThatWaitForEachOtherAreFound) {
  const std::string text = mistake(kernel<64>([](auto& block) {
    if (block.thread() < 48) block.sync();
    block.warp().sync();
    if (block.thread() >= 48) block.sync();
  }));
  EXPECT_NE(text.find("wait for ever"), std::string::npos) << text;
}

TEST(Simt, OddAddressesAreRefused) {
  EXPECT_NE(
      mistake(kernel<32>([](auto& block) { block.copy_async(block.shared() + 4, block.shared()); }),
              {.shared_bytes = 64})
          .find("not aligned"),
      std::string::npos);
  EXPECT_NE(mistake(kernel<32>(
                        [](auto& block) { block.copy_async(block.shared() + 64, block.shared()); }),
                    {.shared_bytes = 64})
                .find("not in shared memory"),
            std::string::npos);
}

TEST(Simt, RunsGoOnAfterAMistake) {
  for (int turn = 0; turn < 3; ++turn) {
    EXPECT_THROW(run_kernel(kernel<256>([](auto& block) {
                              const std::vector<int> owned(100);  // freed when the fiber is unwound
                              if (block.thread() == 200) throw std::runtime_error("x");
                              block.sync();
                            }),
                            {}),
                 std::runtime_error);
    int count = 0;
    int* counter = &count;
    run_kernel(kernel<256>([counter](auto& block) {
                 block.sync();
                 block.fetch_add(counter, 1);
               }),
               {});
    EXPECT_EQ(count, 256);
  }
}

}  // namespace
}  // namespace kvast::test
