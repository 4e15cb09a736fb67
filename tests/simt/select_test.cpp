// SPDX-License-Identifier: Apache-2.0
// select on the device drops the tokens that host/select.h drops.
#include "kvast/gpu/select.cuh"

#include <gtest/gtest.h>

#include "kvast/host/select.h"
#include "tests/simt/ranked_heads.h"

namespace kvast::gpu {
namespace {

using test::Random;
using test::RankedHeads;

/// What a kernel did to the live bits.
void expect_evicted(const Head& head, const std::vector<std::uint32_t>& before,
                    const std::vector<int>& victims, const std::string& what) {
  std::vector<std::uint32_t> wanted = before;
  for (const int slot : victims)
    wanted[static_cast<std::size_t>(slot / kBlockTokens)] &= ~(1U << slot % kBlockTokens);
  int live[2] = {};
  for (int index = 0; index < head.blocks(); ++index) {
    ASSERT_EQ(head.block(index).live, wanted[static_cast<std::size_t>(index)])
        << what << ", block " << index;
    live[index < head.coded.count ? 0 : 1] += head.block(index).live_count();
  }
  ASSERT_EQ(head.coded.live, live[0]) << what;
  ASSERT_EQ(head.dense.live, live[1]) << what;
}

std::vector<std::uint32_t> live_of(const Head& head) {
  std::vector<std::uint32_t> live;
  for (int index = 0; index < head.blocks(); ++index) live.push_back(head.block(index).live);
  return live;
}

/// Every head's turn, and what came of it.
void check(const std::vector<RankedHeads*>& layers, const std::vector<Turn>& turns) {
  int most_tables = 0;
  test::DeviceVector<LayerView> views;
  for (RankedHeads* layer : layers) {
    views.push_back(layer->view());
    most_tables = std::max(most_tables, layer->count());
  }
  ASSERT_EQ(turns.size(), layers.size() * static_cast<std::size_t>(most_tables));
  const auto turns_there = test::on_device(turns);
  struct Before {
    std::vector<std::uint32_t> live;
    std::vector<int> victims;
  };
  std::vector<Before> all(turns.size());
  const auto each = [&](const auto& body) {
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      for (int table = 0; table < layers[layer]->count(); ++table)
        body(*layers[layer], table,
             layer * static_cast<std::size_t>(most_tables) + static_cast<std::size_t>(table));
    }
  };
  each([&](const RankedHeads& layer, int table, std::size_t at) {
    all[at].live = live_of(layer[table]);
    if (!turns[at].acts) return;
    RankWork work = layer.work(table, turns[at].target, turns[at].room);
    select_victims(layer[table], work);
    all[at].victims = work.victims;
  });
  ASSERT_TRUE(test::TestDevice::launch(Select{{views.data(), most_tables}, turns_there.data()},
                                       {static_cast<int>(turns.size()), Select::kSharedBytes},
                                       test::stream()));
  test::wait();
  each([&](const RankedHeads& layer, int table, std::size_t at) {
    expect_evicted(layer[table], all[at].live, all[at].victims,
                   "entry " + std::to_string(at) + ", target " + std::to_string(turns[at].target) +
                       ", room " + std::to_string(turns[at].room));
  });
}

/// Heads of one size, one for each kind of rank, and each with a turn of its own.
void check_size(int size, const std::vector<Turn>& some) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    Random random(static_cast<std::uint64_t>(size));
    RankedHeads heads(test::kRankKinds);
    std::vector<Turn> turns;
    for (const Turn& turn : some) {
      for (int kind = 0; kind < test::kRankKinds; ++kind) {
        heads.add(test::ranks_of_kind(kind, size, random), turns.size() % 3 == 1 ? 0.3 : 0.0,
                  Random(random.bits()));
        turns.push_back(turn);
      }
    }
    ASSERT_NO_FATAL_FAILURE(check({&heads}, turns)) << "size " << size;
  }
}

TEST(GpuSelect, TheTokensOfTheProcessor) {
  for (const int size : {0, 1, 31, 32, 33, 1000})
    check_size(size, {{true, -1, -1},
                      {true, 0, -1},
                      {true, size - 1, -1},
                      {true, size / 2, -1},
                      {true, size + 1, -1},
                      {true, -1, 0},
                      {true, size, size / 3}});
}

/// Twice as many tokens as standings stay in shared memory.
TEST(GpuSelect, HeadsLongerThanSharedMemory) {
  for (const int target : {19999, 5000}) check_size(20000, {{true, target, -1}});
}

TEST(GpuSelect, AnExcessOfOneIsTheOldestOfTheLowest) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    Random random(5);
    RankedHeads heads(1);
    std::vector<Turn> turns;
    for (int turn = 0; turn < 20; ++turn) {
      const int kind = turn % 2 == 0 ? 1 : 6;
      heads.add(test::ranks_of_kind(kind, 700, random), 0.1, Random(random.bits()));
      RankWork work = heads.work(turn);
      const int pinned = sort_out(heads[turn], work);
      turns.push_back({true, pinned + static_cast<int>(work.candidates.size()) - 1, -1});
    }
    ASSERT_NO_FATAL_FAILURE(check({&heads}, turns));
  }
}

TEST(GpuSelect, OnlyHeadsThatActOfEveryLayer) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    Random random(7);
    RankedHeads first(1);
    RankedHeads second(2);
    std::vector<Turn> turns(8);  // the first layer has less tables
    for (int table = 0; table < 3; ++table)
      first.add(test::ranks_of_kind(0, 90, random), 0.2, Random(1));
    for (int table = 0; table < 4; ++table)
      second.add(test::ranks_of_kind(6, 90, random), 0.2, Random(2));
    for (std::size_t at = 0; at < turns.size(); ++at) turns[at] = {at % 3 != 0, 40, -1};
    ASSERT_NO_FATAL_FAILURE(check({&first, &second}, turns));
  }
}

}  // namespace
}  // namespace kvast::gpu
