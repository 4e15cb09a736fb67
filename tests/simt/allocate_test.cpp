// SPDX-License-Identifier: Apache-2.0
// Heads that share a budget get the targets of host/allocate.h.
#include "kvast/gpu/allocate.cuh"

#include <gtest/gtest.h>

#include "kvast/host/allocate.h"
#include "tests/simt/ranked_heads.h"

namespace kvast::gpu {
namespace {

using test::Random;
using test::RankedHeads;

constexpr int kHeads = 3;

/// Every sequence under a budget of its own; those without one stay as they are.
void check(RankedHeads& heads, Allocation allocation, const std::vector<int>& budgets) {
  const int sequences = static_cast<int>(budgets.size());
  ASSERT_EQ(heads.count(), sequences * kHeads);
  std::vector<Turn> turns;
  std::vector<int> wanted;
  for (int sequence = 0; sequence < sequences; ++sequence) {
    const int budget = budgets[static_cast<std::size_t>(sequence)];
    const bool acts = sequence % 7 != 6;
    std::vector<RankWork> works;
    std::vector<RankWork*> pointers;
    for (int head = 0; head < kHeads; ++head)
      works.push_back(heads.work(sequence * kHeads + head, budget));
    for (RankWork& work : works) pointers.push_back(&work);
    if (acts) allocate_budget(heads.sequence(sequence), allocation, pointers);
    for (const RankWork& work : works) {
      wanted.push_back(work.target);
      turns.push_back({acts, budget, -1});
    }
  }
  const test::DeviceVector<LayerView> views(1, heads.view());
  auto turns_there = test::on_device(turns);
  test::DeviceVector<Stake> stakes(turns.size());
  test::DeviceVector<AllocateBudget::Rivals> rivals(turns.size());
  ASSERT_TRUE(test::TestDevice::launch(AllocateBudget{{views.data(), sequences, heads.count()},
                                                      turns_there.data(),
                                                      allocation,
                                                      stakes.data(),
                                                      rivals.data()},
                                       {sequences, AllocateBudget::kSharedBytes}, test::stream()));
  test::wait();
  for (std::size_t table = 0; table < wanted.size(); ++table)
    ASSERT_EQ(turns_there[table].target, wanted[table])
        << "head " << table % kHeads << ", budget " << budgets[table / kHeads] << ", safeguard "
        << allocation.safeguard;
}

constexpr Allocation kAllocations[] = {{0.2F, Allocation::Kind::blend},
                                       {0.2F, Allocation::Kind::floor},
                                       {1.0F, Allocation::Kind::blend},
                                       {0.0F, Allocation::Kind::floor}};

TEST(GpuAllocate, TheTargetsOfTheProcessor) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    for (const Allocation allocation : kAllocations) {
      Random random(17);
      RankedHeads heads(kHeads);
      std::vector<int> budgets;
      for (const int budget : {-1, 0, 20, 57, 1000}) {
        for (const int kind : {0, 1, 2, 7}) {
          for (int head = 0; head < kHeads; ++head)
            heads.add(test::ranks_of_kind(head == 1 ? 6 : kind, random.between(0, 120), random),
                      0.2, Random(random.bits()));
          budgets.push_back(budget);
        }
      }
      ASSERT_NO_FATAL_FAILURE(check(heads, allocation, budgets));
    }
  }
}

/// Heads have tokens of equal ranks at equal positions.
TEST(GpuAllocate, TheFirstOfEqualHeadsKeepsMore) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    for (const Allocation allocation : kAllocations) {
      Random random(19);
      RankedHeads heads(kHeads);
      std::vector<int> budgets;
      for (int turn = 0; turn < 6; ++turn) {
        for (int head = 0; head < kHeads; ++head)
          heads.add(test::ranks_of_kind(turn % 2 == 0 ? 1 : 5, 70, random), 0.1,
                    Random(static_cast<std::uint64_t>(turn)));
        budgets.push_back(random.between(1, 70));
      }
      ASSERT_NO_FATAL_FAILURE(check(heads, allocation, budgets));
    }
  }
}

}  // namespace
}  // namespace kvast::gpu
