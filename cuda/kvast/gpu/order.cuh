// SPDX-License-Identifier: Apache-2.0
// A head's tokens in order of position, wherever they lie.
#pragma once

#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Shared memory of in_order.
template <int kThreads>
struct OrderShared {
  static constexpr int kSpan = 32 * kThreads;  ///< positions looked at together
  std::uint32_t present[kThreads];             ///< a bit per position of the span
  int before[kThreads];                        ///< bits below each word
  int scratch[kThreads / kWarp];
};

/// Ranks the live tokens of blocks [first, end) (in the order of Head::block) at positions from
/// `from` on: 0 for the oldest. Warps call visit(index, rank) with block `index`, lane by lane for
/// each slot: `rank` is -1 for slots that take no part, or whose turn is another time; all lanes of
/// a warp call together. Ends when `limit` tokens have had their turn. Every thread takes part.
template <class Block, int kThreads, class Visit>
KVAST_HD void in_order(const Block& block, OrderShared<kThreads>& shared, const Head& head,
                       int first, int end, int from, int limit, const Visit& visit) {
  constexpr int kNone = 0x7FFFFFFF;
  constexpr int kSpan = OrderShared<kThreads>::kSpan;
  const int lane = block.warp().lane();
  // of this lane's slot; kNone where it takes no part
  const auto position_in = [&](int index) {
    const kvast::Block& one = head.block(index);
    const int position = one.position[lane];
    return (one.live >> lane & 1U) != 0 && position >= from ? position : kNone;
  };
  int least = kNone;
  for (int index = first + block.warp_index(); index < end; index += block.warps())
    least = least_of(least, position_in(index));
  int base = block_least(block, least, shared.scratch);
  for (int ranked = 0; base != kNone && ranked < limit;) {
    shared.present[block.thread()] = 0;
    block.sync();
    least = kNone;
    for (int index = first + block.warp_index(); index < end; index += block.warps()) {
      const int position = position_in(index);
      const int offset = position - base;  // of kNone as well: no overflow, as base is not negative
      if (offset >= kSpan) {
        least = least_of(least, position);
      } else if (offset >= 0) {
        block.fetch_or(&shared.present[offset / 32], 1U << offset % 32);
      }
    }
    const int next = block_least(block, least, shared.scratch);
    const std::uint32_t word = shared.present[block.thread()];
    const Scan scan = block_scan(block, count_bits(word), shared.scratch);
    shared.before[block.thread()] = scan.before;
    block.sync();
    for (int index = first + block.warp_index(); index < end; index += block.warps()) {
      const int offset = position_in(index) - base;
      int rank = -1;
      if (offset >= 0 && offset < kSpan) {
        const std::uint32_t older = shared.present[offset / 32] & ((1U << offset % 32) - 1U);
        rank = ranked + shared.before[offset / 32] + count_bits(older);
      }
      visit(index, rank < limit ? rank : -1);
    }
    block.sync();
    ranked += scan.total;
    base = next;
  }
}

}  // namespace kvast::gpu
