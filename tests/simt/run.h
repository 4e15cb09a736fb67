// SPDX-License-Identifier: Apache-2.0
// Runs a kernel's own source on this processor, block after block, each thread a fiber.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/simt/block.h"

namespace kvast::test {

/// In which order threads and blocks come, and when copies happen. Results must not depend on it.
struct Schedule {
  Order order = Order::forward;
  std::uint64_t seed = 0;
  Landing landing = Landing::when_waited_for;
};

inline constexpr Schedule kForward{Order::forward, 0, Landing::when_waited_for};
inline constexpr Schedule kReverse{Order::reverse, 0, Landing::at_once};
inline constexpr Schedule kRandom{Order::random, 1, Landing::either};

/// What a kernel is run in, to demand equal bits. Under sanitizers, which look for something else
/// and take several times as long, one order is enough.
inline constexpr Schedule kSchedules[] = {
#if !defined(__SANITIZE_ADDRESS__)
    kForward, kReverse,
#endif
    kRandom};

/// The fibers of this process; their stacks are kept from run to run.
inline Fibers& shared_fibers() {
  static Fibers fibers;
  return fibers;
}

/// Returns when the kernel is over. Throws SimtError for a kernel's mistake.
template <class Kernel>
void run_kernel(const Kernel& kernel, gpu::Grid grid, Schedule schedule = {}) {
  static_assert(std::is_trivially_copyable_v<Kernel>, "a kernel is copied to the device as bytes");
  static_assert(Kernel::kThreads % gpu::kWarp == 0 && Kernel::kThreads <= 1024,
                "Kernel::kThreads must be a multiple of 32, at most 1024");
  BlockRun run(shared_fibers(), grid, Kernel::kThreads, schedule.landing, schedule.seed);
  Random random(schedule.seed);
  std::vector<int> blocks(static_cast<std::size_t>(grid.blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  if (schedule.order == Order::reverse) std::reverse(blocks.begin(), blocks.end());
  if (schedule.order == Order::random) {
    for (std::size_t left = blocks.size(); left > 1; --left)
      std::swap(blocks[left - 1],
                blocks[static_cast<std::size_t>(random.below(static_cast<int>(left)))]);
  }
  for (const int block : blocks) {
    run.begin(block);
    run.fibers.run(Kernel::kThreads, schedule.order, random.bits(),
                   "block " + std::to_string(block), [&](int thread) {
                     FiberBlock view(run, thread);
                     kernel(view);
                   });
  }
}

}  // namespace kvast::test
