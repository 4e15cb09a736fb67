// SPDX-License-Identifier: Apache-2.0
// The n tokens that go first, as a threshold: radix select in shared memory, by standing and then
// by position. Digits are not those of the number: bins divide the range that is left evenly, as
// ranks of one head share most of their leading bits.
#pragma once

#include "kvast/gpu/standing.cuh"

namespace kvast::gpu {

/// Shared memory of what follows.
template <int kThreads>
struct LowestShared {
  static constexpr int kBins = 4 * kThreads;
  struct Found {
    int bin;
    int before;  ///< numbers in the bins below it
    int count;   ///< in it
  };
  int bins[kBins];
  Found found;
  int scratch[kThreads / kWarp];
  Tally tallies[kThreads / kWarp];
};

/// The lowest of some numbers: those below `bound`, and `ties` of those equal to it, where that is
/// not all of them.
struct Cut {
  std::uint32_t bound = 0;
  int ties = 0;
};

/// The first tokens to go: those below (standing, position), in this order, and `ties` of those
/// equal to it in both, which one head has not.
struct Threshold {
  std::uint32_t standing = 0;
  std::uint32_t position = 0;
  int ties = 0;

  /// Whether a token is below it; equal to it.
  KVAST_HD bool exceeds(std::uint32_t other, const Head& head, int index, int slot) const {
    if (other != standing) return other < standing;
    return static_cast<std::uint32_t>(head.block(index).position[slot]) < position;
  }
  KVAST_HD bool equals(std::uint32_t other, const Head& head, int index, int slot) const {
    return other == standing &&
           static_cast<std::uint32_t>(head.block(index).position[slot]) == position;
  }
};

namespace detail {

/// Adds one to a bin of each lane; -1: to none.
template <class Block>
KVAST_HD void count_in(const Block& block, int* bins, int bin) {
  const auto warp = block.warp();
  const std::uint32_t counted = warp.ballot(bin >= 0);
  if (counted == 0) return;
  // Equal ranks are common, and additions to one address would come one after another.
  const int first = count_bits((counted & (0U - counted)) - 1U);
  const int common = warp.shuffle(bin, first);
  const std::uint32_t same = warp.ballot(bin == common);
  if (warp.lane() == first) {
    block.fetch_add(&bins[common], count_bits(same));
  } else if (bin >= 0 && bin != common) {
    block.fetch_add(&bins[bin], 1);
  }
}

/// The bin that holds number `wanted`, counted from 1.
template <class Block, int kThreads>
KVAST_HD typename LowestShared<kThreads>::Found bin_of(const Block& block,
                                                       LowestShared<kThreads>& shared, int wanted) {
  constexpr int kEach = LowestShared<kThreads>::kBins / kThreads;
  const int first = block.thread() * kEach;
  int counts[kEach];
  int sum = 0;
  for (int at = 0; at < kEach; ++at) sum += counts[at] = shared.bins[first + at];
  int before = block_scan(block, sum, shared.scratch).before;
  for (int at = 0; at < kEach; ++at) {
    if (before < wanted && wanted <= before + counts[at])
      shared.found = {first + at, before, counts[at]};
    before += counts[at];
  }
  block.sync();
  return shared.found;
}

}  // namespace detail

/// The `wanted` lowest numbers, at least one and at most all that lie in `range`; others are not
/// counted. each(visit) has warps call visit(number), lane by lane, and does so in every pass.
/// Every thread of the block takes part and gets the result.
template <class Block, int kThreads, class Each>
KVAST_HD Cut lowest_numbers(const Block& block, LowestShared<kThreads>& shared, Range range,
                            int wanted, const Each& each) {
  for (;;) {
    const std::uint32_t width = range.high - range.low;
    int shift = 0;
    while (width >> shift >= LowestShared<kThreads>::kBins) ++shift;
    for (int bin = block.thread(); bin < LowestShared<kThreads>::kBins; bin += block.threads())
      shared.bins[bin] = 0;
    block.sync();
    each([&](std::uint32_t number) {
      const std::uint32_t offset = number - range.low;
      detail::count_in(block, shared.bins,
                       offset <= width ? static_cast<int>(offset >> shift) : -1);
    });
    block.sync();
    const auto found = detail::bin_of(block, shared, wanted);
    wanted -= found.before;
    range.low += static_cast<std::uint32_t>(found.bin) << shift;
    range.high = least_of(range.high, range.low + ((1U << shift) - 1U));
    if (wanted == found.count) return {.bound = range.high + 1U};
    if (shift == 0) return {.bound = range.low, .ties = wanted};
  }
}

/// The `wanted` open tokens that go first: lowest standings, and of equal ones the oldest.
/// each(visit) has warps call visit(head, index, standing) with block `index` of a head, lane by
/// lane for each slot; only standings in `range` count. Otherwise as lowest_numbers.
template <class Block, int kThreads, class Each>
KVAST_HD Threshold lowest_tokens(const Block& block, LowestShared<kThreads>& shared, Range range,
                                 int wanted, const Each& each) {
  const Cut by_standing = lowest_numbers(block, shared, range, wanted, [&](const auto& visit) {
    each([&](const Head&, int, std::uint32_t standing) { visit(standing); });
  });
  if (by_standing.ties == 0) return {.standing = by_standing.bound};
  const int lane = block.warp().lane();
  const auto positions = [&](const auto& visit) {
    each([&](const Head& head, int index, std::uint32_t standing) {
      visit(standing == by_standing.bound
                ? static_cast<std::uint32_t>(head.block(index).position[lane])
                : kAbsent);
    });
  };
  Tally tied;
  positions([&](std::uint32_t position) {
    if (position != kAbsent) tied.range.add({position, position});
  });
  tied = block_tally(block, tied, shared.tallies);
  const Cut by_position = lowest_numbers(block, shared, tied.range, by_standing.ties, positions);
  return {by_standing.bound, by_position.bound, by_position.ties};
}

}  // namespace kvast::gpu
