// SPDX-License-Identifier: Apache-2.0
// The planner on the device: one small launch per step writes the work list, so that a captured
// graph stays valid while lengths grow and heads differ.
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
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  LayerView layer{};
  PlanView plan{};
  SplitRules rules{};
  int most_blocks = 0;  ///< that heads may have, 0: any. Beyond, as when lists grew since a pass
                        ///< was captured, nothing is planned, and Counters::missing says so

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    int* shared = reinterpret_cast<int*>(block.shared());
    int mine = 0;
    for (int table = block.thread(); table < layer.tables(); table += block.threads())
      mine += costs(table).cost(layer.head(table).blocks());
    const int per_part = blocks_per_part(block_scan(block, mine, shared).total, rules);
    int made = 0;
    for (int first = 0; first < layer.tables(); first += block.threads()) {
      const int table = first + block.thread();
      const bool exists = table < layer.tables();
      const BlockCosts costs = exists ? this->costs(table) : BlockCosts{};
      const int cost = exists ? costs.cost(layer.head(table).blocks()) : 0;
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
  template <class Block>
  KVAST_HD bool fits(const Block& block, int* shared) const {
    int over = 0;
    for (int table = block.thread(); table < layer.tables(); table += block.threads())
      over += layer.head(table).blocks() > most_blocks ? 1 : 0;
    if (block_scan(block, over, shared).total == 0) return true;
    if (block.thread() == 0) block.fetch_add(&layer.counters->missing, 1);
    return false;
  }
  KVAST_HD BlockCosts costs(int table) const {
    return {.coded = layer.head(table).coded.count, .dense_cost = rules.dense_cost};
  }
};

}  // namespace kvast::gpu
