// SPDX-License-Identifier: Apache-2.0
// The small kernels around a pass: it begins, it ends, it never was.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "kvast/core/error.h"
#include "kvast/core/status.h"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// How far a pass is with a layer; `observed`: its policy has seen the weights of the pass.
enum class Stage : std::uint8_t { idle, appended, observed, committed };

constexpr const char* name_of(Stage stage) {
  constexpr const char* kNames[] = {"nothing", "append", "attend or observe", "commit"};
  return kNames[static_cast<int>(stage)];
}

/// Where the new tokens of up to 256 sequences stand in the caller's tensors. Their counts travel
/// with the launch, so that no memory of the host is read later.
struct SetRows {
  static constexpr int kThreads = 256;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  Rows* rows = nullptr;  ///< of the first of these sequences
  int first_row = 0;
  int sequences = 0;  ///< at most kThreads
  int counts[kThreads] = {};

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int at = block.thread();
    const int count = at < sequences ? counts[at] : 0;
    const Scan scan = block_scan(block, count, reinterpret_cast<int*>(block.shared()));
    if (at < sequences) rows[at] = {.first = first_row + scan.before, .count = count};
  }
};

/// Throws Error for counts of new tokens that sequences of these lengths cannot get.
inline void check_counts(const std::vector<int>& lengths, const std::vector<int>& counts,
                         Caller caller) {
  std::int64_t rows = 0;
  for (std::size_t at = 0; at < counts.size(); ++at) {
    require(counts[at] >= 0 && counts[at] <= (1 << 20), caller, "begin: sequence ", at, " gets ",
            counts[at], " tokens, must lie in [0, 2^20]");
    require(lengths[at] < (1 << 30) - counts[at], caller, "begin: sequence ", at, " has ",
            lengths[at], " positions, there are 2^30");
    rows += counts[at];
  }
  require(rows > 0 && rows < (1 << 30), caller, "begin: ", rows, " tokens, must lie in [1, 2^30)");
}

/// For any number of sequences.
template <class DeviceType>
Status send_rows(Rows* rows, const std::vector<int>& counts, typename DeviceType::Stream stream) {
  SetRows kernel;
  for (std::size_t first = 0; first < counts.size(); first += SetRows::kThreads) {
    kernel.rows = rows + first;
    kernel.sequences =
        static_cast<int>(std::min<std::size_t>(counts.size() - first, SetRows::kThreads));
    std::copy_n(counts.begin() + static_cast<std::ptrdiff_t>(first), kernel.sequences,
                kernel.counts);
    if (Status status = DeviceType::launch(kernel, {1, SetRows::kSharedBytes}, stream); !status)
      return status;
    kernel.first_row =
        std::accumulate(kernel.counts, kernel.counts + kernel.sequences, kernel.first_row);
  }
  return {};
}

/// Positions move on, and the host may read how much is in use.
struct EndPass {
  static constexpr int kThreads = 256;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  int* lengths = nullptr;
  int* prompt_ends = nullptr;  ///< where a prompt ends with the pass, else null
  int* unsealed = nullptr;     ///< tokens that came since the sequence was last sealed
  const Rows* rows = nullptr;
  int sequences = 0;
  bool seals = false;
  Counters* counters = nullptr;

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    auto* shared = reinterpret_cast<int*>(block.shared());
    int came = 0;
    int waiting = 0;
    for (int at = block.thread(); at < sequences; at += block.threads()) {
      const int count = rows[at].count;
      lengths[at] += count;
      if (prompt_ends != nullptr && count > 0) prompt_ends[at] = lengths[at];
      unsealed[at] = seals && count > 0 ? 0 : unsealed[at] + count;
      came += count;
      waiting += unsealed[at];
    }
    came = block_scan(block, came, shared).total;
    waiting = block_scan(block, waiting, shared).total;
    if (block.thread() != 0) return;
    ++counters->step;
    counters->brought =
        static_cast<int>(static_cast<unsigned>(counters->brought) + static_cast<unsigned>(came));
    counters->unsealed = waiting;
    counters->check = counters->sum();
  }
};

/// Takes back the newest tokens of a layer: a pass that is dropped before its first commit.
struct TakeBack {
  static constexpr int kThreads = 128;
  LayerView layer{};

  /// Grid: sequences * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    if (layer.counters->missing != 0) return;  // not all have them, and the cache is lost
    const int count = layer.rows[block.index() / layer.head_count].count;
    BlockList& list = layer.head(block.index()).dense;
    const int stay = list.slots() - count;
    const int keep = blocks_of(stay);
    block.sync();  // all have counted
    for (int at = keep + block.thread(); at < list.count; at += block.threads())
      give_record(block, layer, list.data[at], false);
    block.sync();  // all are through the list
    if (block.thread() != 0) return;
    list.count = keep;
    list.live -= count;
    if (keep == 0) return;
    const int used = stay - (keep - 1) * kBlockTokens;
    list[keep - 1].used = used;
    if (used < kBlockTokens) list[keep - 1].live &= (1U << used) - 1U;
  }
};

}  // namespace kvast::gpu
