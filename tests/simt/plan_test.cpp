// SPDX-License-Identifier: Apache-2.0
// The planner: its arithmetic, and the kernel that writes the work list.
#include "kvast/gpu/plan.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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

TEST(SplitRules, ChoicesStayWithinTheWorkList) {
  for (const int workers : {1, 7, 396}) {
    for (const int heads : {1, 8, 600}) {
      for (const int longest : {1, 30, 4096}) {
        const SplitRules rules{.workers = workers, .least_blocks = 1};
        const SplitChoices choices{.all = longest + (heads - 1LL) * ((longest + 2) / 3),
                                   .longest = longest};
        for (int at = 0; at < SplitChoices::kCount; ++at) {
          const int per_part = choices.per_part(at, rules);
          const std::int64_t items =
              parts_of(longest, per_part) + (heads - 1LL) * parts_of((longest + 2) / 3, per_part);
          ASSERT_LE(items, most_items(heads, rules));
        }
      }
    }
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

/// Parts of equal cost: the one with the residual has fewer blocks.
TEST(SplitRules, FollowTheBytesOfBlocks) {
  const SplitRules dense = rules_of_bytes(132, 0, 16384);
  EXPECT_EQ(dense.dense_cost, 1);
  EXPECT_EQ(dense.least_blocks, SplitRules{}.least_blocks);
  const SplitRules four_bits = rules_of_bytes(132, 5120, 16384);
  EXPECT_EQ(four_bits.workers, 132);
  EXPECT_EQ(four_bits.dense_cost, 2);
  EXPECT_EQ(four_bits.least_blocks, SplitRules{}.least_blocks);
  EXPECT_EQ(rules_of_bytes(132, 3072, 16384).dense_cost, 3);
  EXPECT_EQ(rules_of_bytes(132, 8704, 16384).dense_cost, 2);
  EXPECT_EQ(rules_of_bytes(132, 1 << 20, 16384).dense_cost, 1);
}

/// A plan for heads of so many blocks, a third of them coded.
class Planned {
 public:
  Planned(const std::vector<int>& blocks, int head_count, SplitRules rules,
          const std::vector<int>& queries)
      : heads_(blocks.size()), items(most(blocks, rules)), heads(blocks.size()) {
    for (std::size_t at = 0; at < blocks.size(); ++at) {
      heads_[at].coded.count = blocks[at] / 3;
      heads_[at].dense.count = blocks[at] - blocks[at] / 3;
    }
    for (const int count : queries) rows_.push_back({.first = 0, .count = count});
    Plan plan;
    plan.layer.heads = heads_.data();
    plan.layer.rows = rows_.data();
    plan.layer.sequences = static_cast<int>(queries.size());
    plan.layer.head_count = head_count;
    plan.plan = {items.data(), heads.data(), count_.data()};
    plan.rules = rules;
    EXPECT_TRUE(test::TestDevice::launch(plan, {1, Plan::kSharedBytes}, test::stream()));
    test::wait();
    EXPECT_LE(count(), static_cast<int>(items.size()));
  }
  int count() const { return count_[0]; }

 private:
  static std::size_t most(const std::vector<int>& blocks, SplitRules rules) {
    return static_cast<std::size_t>(most_items(static_cast<int>(blocks.size()), rules));
  }

  test::DeviceVector<Head> heads_;
  test::DeviceVector<Rows> rows_;
  test::DeviceVector<int> count_ = test::DeviceVector<int>(1);

 public:
  test::DeviceVector<WorkItem> items;
  test::DeviceVector<HeadItems> heads;
};

TEST(Plan, ListsEveryBlockOnce) {
  test::Random random(4);
  for (const int sequences : {1, 5, 120}) {
    constexpr int kHeads = 3;
    std::vector<int> blocks;
    for (int at = 0; at < sequences * kHeads; ++at)
      blocks.push_back(random.chance(0.2) ? 0 : random.below(random.chance(0.1) ? 4000 : 40));
    const SplitRules rules{.workers = 7, .least_blocks = 4, .dense_cost = 3};
    for (const test::Schedule schedule : test::kSchedules) {
      test::begin_schedule(schedule);
      const Planned planned(blocks, kHeads, rules,
                            std::vector<int>(static_cast<std::size_t>(sequences), 1));
      int at = 0;
      for (std::size_t table = 0; table < blocks.size(); ++table) {
        const HeadItems& head = planned.heads[table];
        ASSERT_EQ(head.first, at);
        int covered = 0;
        for (int part = 0; part < head.parts; ++part, ++at) {
          const WorkItem& item = planned.items[static_cast<std::size_t>(at)];
          ASSERT_EQ(item.sequence * kHeads + item.head, static_cast<int>(table));
          ASSERT_EQ(item.first, covered);
          ASSERT_EQ(item.part, part);
          ASSERT_EQ(item.parts, head.parts);
          covered = item.end;
          const BlockCosts costs{.coded = blocks[table] / 3, .dense_cost = rules.dense_cost};
          const int cost = costs.cost(item.end) - costs.cost(item.first);
          const int all = costs.cost(blocks[table]);
          ASSERT_LE(cost, all / item.parts + rules.dense_cost);
          ASSERT_GE(cost, all / item.parts - rules.dense_cost);
        }
        ASSERT_EQ(covered, blocks[table]);
      }
      ASSERT_EQ(at, planned.count());
    }
  }
}

/// The mean of what workers have to do, over the most that one has; they take items in turn.
double balance(const Planned& planned, int workers) {
  std::vector<double> load(static_cast<std::size_t>(workers));
  double all = 0.0;
  for (int at = 0; at < planned.count(); ++at) {
    const WorkItem& item = planned.items[static_cast<std::size_t>(at)];
    load[static_cast<std::size_t>(at % workers)] += item.end - item.first;
    all += item.end - item.first;
  }
  return all / workers / *std::max_element(load.begin(), load.end());
}

/// Batches of heads that are alike, from too few to fill the device to more than it has workers.
TEST(Plan, WorkersHaveAlikeMuchToDo) {
  test::begin_schedule(test::kSchedules[0]);
  for (const int workers : {264, 396, 528}) {
    for (const int heads : {3, 8}) {
      for (const int sequences : {1, 16, 64}) {
        for (const int blocks : {1024, 4096}) {
          const Planned planned(
              std::vector<int>(static_cast<std::size_t>(heads * sequences), blocks), heads,
              {.workers = workers}, std::vector<int>(static_cast<std::size_t>(sequences), 1));
          EXPECT_GE(balance(planned, workers), std::min(0.9, heads * blocks / 8.0 / workers))
              << workers << " workers, " << sequences << " x " << heads << " heads, " << blocks
              << " blocks";
        }
      }
    }
  }
}

/// And of lengths that differ by a factor of a hundred.
TEST(Plan, WorkersHaveAlikeMuchToDoWhereLengthsDiffer) {
  test::begin_schedule(test::kSchedules[0]);
  test::Random random(9);
  for (const int sequences : {4, 16, 64, 200}) {
    std::vector<int> blocks;
    for (int sequence = 0; sequence < sequences; ++sequence)
      blocks.insert(blocks.end(), 8,
                    static_cast<int>(40.0 * std::exp(random.uniform() * std::log(100.0))));
    const Planned planned(blocks, 8, {.workers = 396},
                          std::vector<int>(static_cast<std::size_t>(sequences), 1));
    EXPECT_GE(balance(planned, 396), 0.6) << sequences << " sequences";
  }
}

/// Sequences that ask nothing take no part.
TEST(Plan, LeavesIdleSequencesOut) {
  test::begin_schedule(test::kSchedules[0]);
  std::vector<int> queries(64);
  queries[17] = 1;
  const Planned planned(std::vector<int>(64 * 8, 1024), 8, {.workers = 396}, queries);
  EXPECT_GE(planned.count(), 380);
  for (int at = 0; at < planned.count(); ++at)
    ASSERT_EQ(planned.items[static_cast<std::size_t>(at)].sequence, 17);
}

}  // namespace
}  // namespace kvast::gpu
