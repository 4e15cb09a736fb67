// SPDX-License-Identifier: Apache-2.0
// reserve: the most that a pass can take from the pool, asked for before anything changes.
#pragma once

#include <vector>

#include "kvast/host/encode.h"
#include "kvast/host/layer.h"

namespace kvast {

/// Adds up requests of equal size.
class Requests {
 public:
  void add(std::size_t bytes, std::int64_t count) {
    if (bytes == 0 || count <= 0) return;
    for (BlockPool::Request& request : requests_) {
      if (BlockPool::charged(request.bytes) == BlockPool::charged(bytes)) {
        request.count += count;
        return;
      }
    }
    requests_.push_back({bytes, count});
  }
  void clear() { requests_.clear(); }
  std::span<const BlockPool::Request> all() const { return requests_; }

 private:
  std::vector<BlockPool::Request> requests_;
};

/// `count` more blocks at the end of a list.
inline void reserve_blocks(const LayerPlan& plan, const BlockList& list, bool coded, int count,
                           Requests& requests) {
  requests.add(plan.side.bytes, count);
  requests.add(plan.key_bytes(coded), count);
  requests.add(plan.value_bytes(coded), count);
  for (int capacity = list.capacity; count > 0 && capacity < list.count + count;) {
    capacity = list_capacity(capacity + 1);
    requests.add(list_bytes(capacity), 1);
  }
}

/// One layer's share of a pass of `tokens` tokens. `shares`: payloads may belong to a fork as well,
/// and are copied before they are written. `ends_prompt`: heads choose their channels. Returns
/// whether any still does.
inline bool reserve_layer(const LayerState& layer, int tokens, bool seals, bool ends_prompt,
                          bool shares, BlockPool& pool, Requests& requests) {
  const LayerPlan& plan = layer.plan;
  bool any_shared = false;
  for (const Head& head : layer.heads) {
    const BlockList& dense = head.dense;
    const int used = dense.slots();
    const int blocks = blocks_of(used + tokens);
    reserve_blocks(plan, dense, false, blocks - dense.count, requests);
    int shared_coded = 0;
    if (shares && plan.has_payload()) {
      // keys and values apart: a fork in another thread may have let go of only one of them
      int keys = 0;
      int values = 0;
      for (int index = 0; index < dense.count; ++index) {
        keys += pool.is_shared(dense[index].keys) ? 1 : 0;
        values += pool.is_shared(dense[index].values) ? 1 : 0;
      }
      for (int index = 0; index < head.coded.count; ++index) {
        const Block& block = head.coded[index];
        shared_coded += pool.is_shared(block.keys) || pool.is_shared(block.values) ? 1 : 0;
      }
      requests.add(plan.key_bytes(false), keys);
      requests.add(plan.value_bytes(false), values);
      any_shared = any_shared || keys + values + shared_coded > 0;
    }
    if (!plan.is_coded()) continue;
    // merging sparse blocks takes what it gives back, but for what a fork keeps alive
    int coded = layer.evicts ? shared_coded : 0;
    if (seals && (ends_prompt || plan.can_seal(head)))
      coded += plan.keeps_order ? blocks : blocks_to_seal(plan, used + tokens);
    reserve_blocks(plan, head.coded, true, coded, requests);
  }
  return any_shared;
}

}  // namespace kvast
