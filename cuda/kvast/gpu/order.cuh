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

inline constexpr int kNoPosition = 0x7FFFFFFF;

/// Ranks the slots of blocks [first, end) by position: 0 for the oldest. position_of(index) is that
/// of the lane's slot in block `index`, kNoPosition where it takes no part. Warps call
/// visit(index, rank), lane by lane for each slot: `rank` is -1 for slots that take no part, or
/// whose turn is another time; all lanes of a warp call together. A slot's position must stay until
/// it was visited. Ends when `limit` tokens have had their turn, and returns how many there were in
/// the spans so far. Every thread takes part.
template <class Block, int kThreads, class PositionOf, class Visit>
KVAST_HD int in_order(const Block& block, OrderShared<kThreads>& shared, int first, int end,
                      int limit, const PositionOf& position_of, const Visit& visit) {
  constexpr int kSpan = OrderShared<kThreads>::kSpan;
  int least = kNoPosition;
  for (int index = first + block.warp_index(); index < end; index += block.warps())
    least = least_of(least, position_of(index));
  int base = block_least(block, least, shared.scratch);
  int ranked = 0;
  while (base != kNoPosition && ranked < limit) {
    shared.present[block.thread()] = 0;
    block.sync();
    least = kNoPosition;
    for (int index = first + block.warp_index(); index < end; index += block.warps()) {
      const int position = position_of(index);
      const int offset = position - base;  // of kNoPosition as well: base is not negative
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
      const int offset = position_of(index) - base;
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
  return ranked;
}

/// The same of a head's live tokens at positions from `from` on; blocks as Head::block has them.
template <class Block, int kThreads, class Visit>
KVAST_HD void in_order(const Block& block, OrderShared<kThreads>& shared, const Head& head,
                       int first, int end, int from, int limit, const Visit& visit) {
  const int lane = block.warp().lane();
  const auto position_of = [&head, lane, from](int index) {
    const kvast::Block& one = head.block(index);
    const int position = one.position[lane];
    return (one.live >> lane & 1U) != 0 && position >= from ? position : kNoPosition;
  };
  in_order(block, shared, first, end, limit, position_of, visit);
}

}  // namespace kvast::gpu
