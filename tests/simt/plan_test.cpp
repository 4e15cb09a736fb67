// SPDX-License-Identifier: Apache-2.0
// The planner: its arithmetic, and the kernel that writes the work list.
#include "kvast/gpu/plan.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast::gpu {
namespace {

TEST(SplitRules, PartsCoverAHeadOnceAndDifferByAtMostOne) {
  for (const int per_part : {1, 8, 24, 1000}) {
    for (int blocks = 0; blocks < 200; ++blocks) {
      const int parts = parts_of(blocks, per_part);
      ASSERT_EQ(parts == 0, blocks == 0);
      int covered = 0;
      for (int part = 0; part < parts; ++part) {
        const int begin = part_begin(blocks, parts, part);
        const int end = part_begin(blocks, parts, part + 1);
        ASSERT_EQ(begin, covered);
        ASSERT_GE(end - begin, blocks / parts);
        ASSERT_LE(end - begin, per_part);
        covered = end;
      }
      ASSERT_EQ(covered, blocks);
    }
  }
}

TEST(SplitRules, EveryWorkerGetsAPartAndShortOnesAreNotSplit) {
  const SplitRules rules{.workers = 132, .least_blocks = 8};
  EXPECT_EQ(blocks_per_part(0, rules), 8);
  EXPECT_EQ(blocks_per_part(132 * 8 - 1, rules), 8);
  EXPECT_EQ(blocks_per_part(132 * 16, rules), 16);
  EXPECT_EQ(blocks_per_part(132 * 23, rules), 16);
  EXPECT_EQ(blocks_per_part(std::int64_t{1} << 40U, rules), 1 << 30);
  for (const int blocks : {1056, 4096, 100000}) {
    const int per_part = blocks_per_part(blocks, rules);
    EXPECT_GE(parts_of(blocks, per_part), rules.workers);
    EXPECT_LE(parts_of(blocks, per_part), most_items(1, rules));
  }
}

TEST(SplitRules, CostsCountCodedBlocksFirst) {
  for (const int dense_cost : {1, 3, 5}) {
    const BlockCosts costs{.coded = 10, .dense_cost = dense_cost};
    EXPECT_EQ(costs.cost(7), 7);
    EXPECT_EQ(costs.cost(10), 10);
    EXPECT_EQ(costs.cost(14), 10 + 4 * dense_cost);
    for (int blocks = 0; blocks < 40; ++blocks) {
      ASSERT_EQ(costs.blocks(costs.cost(blocks)), blocks);
      if (blocks >= 10) {
        ASSERT_EQ(costs.blocks(costs.cost(blocks) + dense_cost - 1), blocks);
      }
    }
  }
}

/// Parts of equal cost: the one with the residual has fewer blocks, and a part of small blocks has
/// more of them.
TEST(SplitRules, FollowTheBytesOfBlocks) {
  const SplitRules dense = rules_of_bytes(132, 0, 16384);
  EXPECT_EQ(dense.dense_cost, 1);
  EXPECT_EQ(dense.least_blocks, SplitRules{}.least_blocks);
  const SplitRules four_bits = rules_of_bytes(132, 5120, 16384);
  EXPECT_EQ(four_bits.workers, 132);
  EXPECT_EQ(four_bits.dense_cost, 3);
  EXPECT_EQ(four_bits.least_blocks, 24);
  EXPECT_EQ(rules_of_bytes(132, 3072, 16384).dense_cost, 5);
  EXPECT_EQ(rules_of_bytes(132, 8704, 16384).dense_cost, 2);
  EXPECT_EQ(rules_of_bytes(132, 1 << 20, 16384).dense_cost, 1);
}

struct Tables {
  explicit Tables(const std::vector<int>& blocks) : heads(blocks.size()) {
    for (std::size_t at = 0; at < blocks.size(); ++at) {  // a third of them coded
      heads[at].coded.count = blocks[at] / 3;
      heads[at].dense.count = blocks[at] - blocks[at] / 3;
    }
  }
  test::DeviceVector<Head> heads;
};

TEST(Plan, ListsEveryBlockOnce) {
  test::Random random(4);
  for (const int sequences : {1, 5, 120}) {
    constexpr int kHeads = 3;
    std::vector<int> blocks;
    for (int at = 0; at < sequences * kHeads; ++at)
      blocks.push_back(random.chance(0.2) ? 0 : random.below(random.chance(0.1) ? 4000 : 40));
    Tables tables(blocks);
    const SplitRules rules{.workers = 7, .least_blocks = 4, .dense_cost = 3};
    const auto most = static_cast<std::size_t>(most_items(sequences * kHeads, rules));
    for (const test::Schedule schedule : test::kSchedules) {
      test::begin_schedule(schedule);
      test::DeviceVector<WorkItem> items(most);
      test::DeviceVector<HeadItems> heads(blocks.size());
      test::DeviceVector<int> counts(1);
      Plan plan;
      plan.layer.heads = tables.heads.data();
      plan.layer.sequences = sequences;
      plan.layer.head_count = kHeads;
      plan.plan = {items.data(), heads.data(), counts.data()};
      plan.rules = rules;
      ASSERT_TRUE(test::TestDevice::launch(plan, {1, Plan::kSharedBytes}, test::stream()));
      test::wait();
      const int count = counts[0];
      ASSERT_LE(count, static_cast<int>(most));
      int at = 0;
      for (std::size_t table = 0; table < blocks.size(); ++table) {
        ASSERT_EQ(heads[table].first, at);
        int covered = 0;
        for (int part = 0; part < heads[table].parts; ++part, ++at) {
          const WorkItem& item = items[static_cast<std::size_t>(at)];
          ASSERT_EQ(item.sequence * kHeads + item.head, static_cast<int>(table));
          ASSERT_EQ(item.first, covered);
          ASSERT_EQ(item.part, part);
          ASSERT_EQ(item.parts, heads[table].parts);
          covered = item.end;
          const BlockCosts costs{.coded = blocks[table] / 3, .dense_cost = rules.dense_cost};
          const int cost = costs.cost(item.end) - costs.cost(item.first);
          const int all = costs.cost(blocks[table]);
          ASSERT_LE(cost, all / item.parts + rules.dense_cost);
          ASSERT_GE(cost, all / item.parts - rules.dense_cost);
        }
        ASSERT_EQ(covered, blocks[table]);
      }
      ASSERT_EQ(at, count);
    }
  }
}

}  // namespace
}  // namespace kvast::gpu
