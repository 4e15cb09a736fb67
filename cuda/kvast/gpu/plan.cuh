// SPDX-License-Identifier: Apache-2.0
// The planner on the device: one small launch per layer and pass writes the work list, so that a
// captured graph stays valid while lengths grow and heads differ.
#pragma once

#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/plan.h"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Where a plan stands in device memory.
struct PlanView {
  WorkItem* items = nullptr;   ///< room for most_items; by sequence, head and part
  HeadItems* heads = nullptr;  ///< [sequences, head_count]
  int* count = nullptr;        ///< items
};

struct Plan {
  static constexpr int kThreads = 256;
  static constexpr int kShare = kThreads / SplitChoices::kCount;  ///< threads to a choice
  static constexpr std::size_t kSharedBytes = SplitChoices::kCount * sizeof(std::int64_t);
  static_assert(kThreads % SplitChoices::kCount == 0 && kWarp % kShare == 0);
  LayerView layer{};
  PlanView plan{};
  SplitRules rules{};
  int most_blocks = 0;  ///< that heads may have, 0: any. Beyond, as when lists grew since a pass
                        ///< was captured, nothing is planned, and Counters::missing says so

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    int* shared = reinterpret_cast<int*>(block.shared());
    const int per_part = choose(block, shared);
    int made = 0;
    for (int first = 0; first < layer.tables(); first += block.threads()) {
      const int table = first + block.thread();
      const bool exists = table < layer.tables();
      const BlockCosts costs = exists ? this->costs(table) : BlockCosts{};
      const int cost = exists ? cost_of(table) : 0;
      const int parts = parts_of(cost, per_part);
      const Scan scan = block_scan(block, parts, shared);
      if (exists) plan.heads[table] = {.first = made + scan.before, .parts = parts};
      for (int part = 0; part < parts; ++part) {
        plan.items[made + scan.before + part] = {
            .sequence = table / layer.head_count,
            .head = table % layer.head_count,
            .first = costs.blocks(part_begin(cost, parts, part)),
            .end = costs.blocks(part_begin(cost, parts, part + 1)),
            .part = part,
            .parts = parts};
      }
      made += scan.total;
    }
    if (most_blocks > 0) made = fits(block, shared) ? made : 0;
    if (block.thread() == 0) *plan.count = made;
  }

 private:
  /// Blocks to a part, by cost.
  template <class Block>
  KVAST_HD int choose(const Block& block, int* shared) const {
    SplitChoices choices;
    int mine = 0;
    for (int table = block.thread(); table < layer.tables(); table += block.threads()) {
      const int cost = cost_of(table);
      mine += cost;
      choices.longest = most_of(choices.longest, cost);
    }
    choices.all = block_scan(block, mine, shared).total;
    choices.longest = block_most(block, choices.longest, shared);
    const int choice = block.thread() / kShare;
    const int per_part = choices.per_part(choice, rules);
    int items = 0;
    for (int table = block.thread() % kShare; table < layer.tables(); table += kShare)
      items += parts_of(cost_of(table), per_part);
    for (int mask = kShare / 2; mask > 0; mask /= 2) items += block.warp().shuffle_xor(items, mask);
    auto* times = reinterpret_cast<std::int64_t*>(shared);
    if (block.thread() % kShare == 0) times[choice] = time_of(items, per_part, rules);
    block.sync();
    int best = 0;
    for (int at = 1; at < SplitChoices::kCount; ++at) best = times[at] < times[best] ? at : best;
    block.sync();
    return choices.per_part(best, rules);
  }
  template <class Block>
  KVAST_HD bool fits(const Block& block, int* shared) const {
    int over = 0;
    for (int table = block.thread(); table < layer.tables(); table += block.threads())
      over += asks(table) && layer.head(table).blocks() > most_blocks ? 1 : 0;
    if (block_scan(block, over, shared).total == 0) return true;
    if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
    return false;
  }
  /// Sequences that have no queries in the pass have no work.
  KVAST_HD bool asks(int table) const { return layer.rows[table / layer.head_count].count > 0; }
  KVAST_HD int cost_of(int table) const {
    return asks(table) ? costs(table).cost(layer.head(table).blocks()) : 0;
  }
  KVAST_HD BlockCosts costs(int table) const {
    return {.coded = layer.head(table).coded.count, .dense_cost = rules.dense_cost};
  }
};

}  // namespace kvast::gpu
