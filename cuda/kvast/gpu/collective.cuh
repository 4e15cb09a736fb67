// SPDX-License-Identifier: Apache-2.0
// Sums over a thread block, in the same order on every backend.
#pragma once

#include "kvast/gpu/block.cuh"

namespace kvast::gpu {

struct Scan {
  int before = 0;  ///< sum over the threads below this one
  int total = 0;   ///< over all
};

/// Every thread of the block takes part. `shared` has room for an int per warp, and may be used for
/// something else afterwards.
template <class Block>
KVAST_HD Scan block_scan(const Block& block, int value, int* shared) {
  const auto warp = block.warp();
  const int with_mine = warp_scan(warp, value);
  if (warp.lane() == kWarp - 1) shared[block.warp_index()] = with_mine;
  block.sync();
  Scan scan{.before = with_mine - value};
  for (int at = 0; at < block.warps(); ++at) {
    if (at < block.warp_index()) scan.before += shared[at];
    scan.total += shared[at];
  }
  block.sync();
  return scan;
}

/// Greatest value of all threads, under the same conditions.
template <class Block>
KVAST_HD int block_most(const Block& block, int value, int* shared) {
  const auto warp = block.warp();
  const int most = warp_max(warp, value);
  if (warp.lane() == 0) shared[block.warp_index()] = most;
  block.sync();
  int all = most;
  for (int at = 0; at < block.warps(); ++at) all = shared[at] > all ? shared[at] : all;
  block.sync();
  return all;
}

/// Least value of all threads, under the same conditions.
template <class Block>
KVAST_HD int block_least(const Block& block, int value, int* shared) {
  return -block_most(block, -value, shared);
}

/// 16 bytes at once.
struct alignas(16) Chunk {
  std::uint32_t words[4];
};

}  // namespace kvast::gpu
