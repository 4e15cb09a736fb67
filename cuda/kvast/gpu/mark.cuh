// SPDX-License-Identifier: Apache-2.0
// mark: before a head is profiled, its most frequent tokens are marked. As host/profile.h does.
#pragma once

#include "kvast/core/check_policy.h"
#include "kvast/gpu/lowest.cuh"

#if defined(__CUDACC__)  // a policy's hook that is no KVAST_HD stops compilation, at its call
#pragma nv_diagnostic push
#pragma nv_diag_error 20011, 20013, 20014
#endif

namespace kvast::gpu {

/// Marks Policy::marks tokens of each head that chose nothing yet: those with the highest
/// frequency, and of equal ones the newer. Frequencies stand where ranks do until a commit.
template <class Policy>
struct Mark {
  static constexpr int kThreads = 512;
  using Shared = LowestShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  LayerView layer{};
  Policy policy{};

  /// Grid: sequences * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = block.index();
    const int sequence = table / layer.head_count;
    if (layer.rows[sequence].count == 0 || layer.turns[table].chose) return;
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const Head head = layer.head(table);
    const int lane = block.warp().lane();
    fill_ranks(block, layer, table, [&](const Token& token, kvast::Block& one, int slot) {
      return policy.frequency(token, state_at<Policy>(layer.layout, one, slot));
    });
    // each warp comes back to the blocks whose frequencies it wrote
    const Tally tally =
        survey(block, layer, head, shared.tallies, [](int, std::uint32_t) { /* counted */ });
    Range range = tally.range;
    if (tally.pinned > 0) range.add({kPinned, kPinned});
    const int known = tally.open + tally.pinned;
    const int marks = least_of(most_of(policy.marks(layer.newest(sequence) + 1), 0), known);
    if (marks == 0) return;
    const auto each = [&](const auto& visit) {
      for (int index = block.warp_index(); index < head.blocks(); index += block.warps())
        visit(head, index, standing_in(layer, head.block(index), lane));
    };
    Threshold threshold;
    if (marks < known) threshold = lowest_tokens(block, shared, range, known - marks, each);
    each([&](const Head&, int index, std::uint32_t standing) {
      const bool counts = standing != 0 && standing != kAbsent;
      if (counts && !threshold.exceeds(standing, head, index, lane))
        policy.mark(state_at<Policy>(layer.layout, head.block(index), lane));
    });
  }
};

}  // namespace kvast::gpu

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
