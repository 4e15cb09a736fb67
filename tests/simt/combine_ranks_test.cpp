// SPDX-License-Identifier: Apache-2.0
// Pooled and shared ranks on the device have the bits of host/select.h's.
#include <gtest/gtest.h>

#include "kvast/gpu/pool_ranks.cuh"
#include "kvast/gpu/share_ranks.cuh"
#include "kvast/host/select.h"
#include "tests/simt/ranked_heads.h"

namespace kvast::gpu {
namespace {

using test::Random;
using test::RankedHeads;

/// Of live tokens. A NaN's payload is the processor's own affair.
void expect_ranks(const Head& head, const std::vector<float>& ranks, const std::string& what) {
  for (int index = 0; index < head.blocks(); ++index) {
    for (int slot = 0; slot < kBlockTokens; ++slot) {
      if ((head.block(index).live >> slot & 1U) == 0) continue;
      const float rank = RankedHeads::ranks_of(head.block(index))[slot];
      const float wanted = ranks[static_cast<std::size_t>(index * kBlockTokens + slot)];
      if (rank != rank && wanted != wanted) continue;
      ASSERT_EQ(bits_as<std::uint32_t>(rank), bits_as<std::uint32_t>(wanted))
          << what << ", slot " << slot << " of block " << index;
    }
  }
}

void check_pooling(const std::vector<int>& sizes, Pooling pooling) {
  Random random(11);
  RankedHeads heads(1);
  std::vector<Turn> turns;
  int most = 0;
  for (const int size : sizes) {
    for (int kind = 0; kind < test::kRankKinds; ++kind) {
      heads.add(test::ranks_of_kind(kind, size, random), 0.2, Random(random.bits()));
      turns.push_back({turns.size() % 5 != 4});
    }
    most = std::max(most, size);
  }
  std::vector<std::vector<float>> wanted;
  for (int table = 0; table < heads.count(); ++table) {
    RankWork work = heads.work(table);
    if (turns[static_cast<std::size_t>(table)].acts) pool_ranks(heads[table], pooling, work);
    wanted.push_back(work.ranks);
  }
  const test::DeviceVector<LayerView> views(1, heads.view());
  const auto turns_there = test::on_device(turns);
  test::DeviceVector<float> votes(turns.size() * static_cast<std::size_t>(most));
  ASSERT_TRUE(test::TestDevice::launch(
      PoolRanks{{views.data(), heads.count()}, turns_there.data(), pooling, votes.data(), most},
      {heads.count(), PoolRanks::kSharedBytes}, test::stream()));
  test::wait();
  for (int table = 0; table < heads.count(); ++table)
    ASSERT_NO_FATAL_FAILURE(expect_ranks(heads[table], wanted[static_cast<std::size_t>(table)],
                                         "head " + std::to_string(table)));
}

TEST(GpuPoolRanks, TheBitsOfTheProcessor) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    constexpr auto kAverage = Pooling::Kind::average;
    constexpr auto kMaximum = Pooling::Kind::maximum;
    for (const Pooling pooling :
         {Pooling{1, kAverage}, Pooling{7, kAverage}, Pooling{5, kMaximum}, Pooling{63, kMaximum}})
      ASSERT_NO_FATAL_FAILURE(check_pooling({0, 1, 300}, pooling));
  }
}

/// Positions that are looked at together end amid neighbours.
TEST(GpuPoolRanks, NeighboursInAnotherSpan) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    ASSERT_NO_FATAL_FAILURE(check_pooling({20000}, {7, Pooling::Kind::average}));
  }
}

TEST(GpuShareRanks, TheBitsOfTheProcessor) {
  constexpr int kHeads = 5;
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    Random random(13);
    RankedHeads heads(kHeads);
    int sequences = 0;
    for (const int size : {0, 1, 33, 1000}) {
      for (int kind = 0; kind < test::kRankKinds; ++kind, ++sequences) {
        for (int head = 0; head < kHeads; ++head) {
          heads.add(test::ranks_of_kind(head < 3 ? 0 : kind, size, random), 0.2,
                    Random(static_cast<std::uint64_t>(sequences)));
        }
      }
    }
    std::vector<Turn> turns;
    std::vector<std::vector<float>> wanted;
    for (int sequence = 0; sequence < sequences; ++sequence) {
      const bool acts = sequence % 5 != 4;
      std::vector<RankWork> works;
      std::vector<RankWork*> pointers;
      for (int head = 0; head < kHeads; ++head)
        works.push_back(heads.work(sequence * kHeads + head));
      for (RankWork& work : works) pointers.push_back(&work);
      if (acts) share_ranks(pointers);
      for (const RankWork& work : works) {
        wanted.push_back(work.ranks);
        turns.push_back({acts});
      }
    }
    const test::DeviceVector<LayerView> views(1, heads.view());
    const auto turns_there = test::on_device(turns);
    ASSERT_TRUE(test::TestDevice::launch(
        ShareRanks{{views.data(), sequences, heads.count()}, turns_there.data()}, {sequences, 0},
        test::stream()));
    test::wait();
    for (int table = 0; table < heads.count(); ++table)
      ASSERT_NO_FATAL_FAILURE(expect_ranks(heads[table], wanted[static_cast<std::size_t>(table)],
                                           "head " + std::to_string(table)));
  }
}

}  // namespace
}  // namespace kvast::gpu
