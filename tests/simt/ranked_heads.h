// SPDX-License-Identifier: Apache-2.0
// Heads of tokens whose ranks are known, without payload: what the kernels of select work on. The
// processor's functions can read them as well.
#pragma once

#include <deque>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kvast/gpu/tables.cuh"
#include "kvast/host/rank.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast::test {

/// A layer's heads, sequence by sequence.
class RankedHeads {
 public:
  explicit RankedHeads(int head_count) : head_count_(head_count) {}

  /// Another head with these tokens, at growing positions with gaps, scattered over slots of which
  /// `holes` are dead; half of the blocks are coded. Equal `random` means equal slots.
  void add(const std::vector<float>& ranks, double holes, Random random) {
    std::vector<int> slots;
    int used = 0;
    while (slots.size() < ranks.size()) {
      if (!random.chance(holes)) slots.push_back(used);
      ++used;
    }
    for (std::size_t left = slots.size(); left > 1; --left)
      std::swap(slots[left - 1],
                slots[static_cast<std::size_t>(random.below(static_cast<int>(left)))]);
    const auto blocks = static_cast<std::size_t>(blocks_of(used));
    records_.emplace_back(blocks * kRecordBytes);
    lists_.emplace_back(blocks);
    Head head;
    for (std::size_t at = 0; at < blocks; ++at) {
      auto* block = new (records_.back().data() + at * kRecordBytes) Block;
      block->used = std::min(used - static_cast<int>(at) * kBlockTokens, kBlockTokens);
      lists_.back()[at] = block;
      for (int slot = 0; slot < kBlockTokens; ++slot) {  // what dead slots hold must not matter
        block->position[slot] = random.below(1000);
        ranks_of(*block)[slot] = random.chance(0.5) ? kDrop : kPin;
      }
    }
    const int coded = static_cast<int>(blocks) / 2;
    head.coded = {lists_.back().data(), coded, coded};
    head.dense = {lists_.back().data() + coded, static_cast<int>(blocks) - coded,
                  static_cast<int>(blocks) - coded};
    int position = 0;
    for (std::size_t token = 0; token < ranks.size(); ++token) {
      position += random.between(1, 3);
      Block& block = head.block(slots[token] / kBlockTokens);
      const int slot = slots[token] % kBlockTokens;
      block.live |= 1U << slot;
      block.position[slot] = position;
      ranks_of(block)[slot] = ranks[token];
    }
    for (int index = 0; index < head.blocks(); ++index)
      (index < coded ? head.coded : head.dense).live += head.block(index).live_count();
    heads_.push_back(head);
  }

  int count() const { return static_cast<int>(heads_.size()); }
  const Head& operator[](int table) const { return heads_[static_cast<std::size_t>(table)]; }
  std::span<const Head> sequence(int sequence) const {
    return std::span<const Head>(heads_).subspan(static_cast<std::size_t>(sequence * head_count_),
                                                 static_cast<std::size_t>(head_count_));
  }
  gpu::LayerView view() {
    gpu::LayerView view;
    view.heads = heads_.data();
    view.head_count = head_count_;
    view.sequences = count() / head_count_;
    view.ranks_at = sizeof(Block);
    view.counters = counters_.data();
    return view;
  }
  /// As the processor has them.
  RankWork work(int table, int target = -1, int room = -1) const {
    RankWork work;
    const Head& head = (*this)[table];
    for (int index = 0; index < head.blocks(); ++index)
      work.ranks.insert(work.ranks.end(), ranks_of(head.block(index)),
                        ranks_of(head.block(index)) + kBlockTokens);
    work.target = target;
    work.room = room;
    return work;
  }
  static float* ranks_of(Block& block) { return reinterpret_cast<float*>(&block + 1); }

 private:
  static constexpr std::size_t kRecordBytes = sizeof(Block) + kBlockTokens * sizeof(float);
  int head_count_;
  std::deque<DeviceVector<std::byte>> records_;
  std::deque<DeviceVector<Block*>> lists_;
  DeviceVector<gpu::Counters> counters_ = DeviceVector<gpu::Counters>(1);
  DeviceVector<Head> heads_;
};

/// Ranks of one kind; `kind` in [0, kRankKinds).
inline constexpr int kRankKinds = 8;
inline std::vector<float> ranks_of_kind(int kind, int count, Random& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kOdd[] = {kNaN,  -kNaN, kInfinity,      -kInfinity,     0.0F,
                            -0.0F, kPin,  kDrop,          1e-42F,         -1e-42F,
                            1.0F,  -1.0F, 3.4028232e+38F, -3.4028232e+38F};
  std::vector<float> ranks(static_cast<std::size_t>(count));
  for (float& rank : ranks) {
    const auto normal = static_cast<float>(random.normal());
    switch (kind) {
      case 0:
        rank = normal;
        break;
      case 1:
        rank = static_cast<float>(random.below(3));
        break;
      case 2:
        rank = kOdd[random.below(static_cast<int>(std::size(kOdd)))];
        break;
      case 3:
        rank = kDrop;
        break;
      case 4:
        rank = kPin;
        break;
      case 5:
        rank = 0.25F;
        break;
      case 6:
        rank = random.chance(0.1) ? kPin : random.chance(0.1) ? kDrop : std::exp(normal);
        break;
      default:
        rank = random.chance(0.01) ? kNaN : 1.0F + 1e-6F * normal;
        break;
    }
  }
  return ranks;
}

}  // namespace kvast::test
