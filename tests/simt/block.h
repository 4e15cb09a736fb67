// SPDX-License-Identifier: Apache-2.0
// The block of gpu/block.cuh on fibers. What each operation guarantees stands there.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "kvast/gpu/block.cuh"
#include "tests/simt/warp.h"

namespace kvast::test {

/// When asynchronous copies happen. The device may do so at any time between, so who reads before
/// he waited may find what was there before, and who copies over what others still read destroys
/// it.
enum class Landing : std::uint8_t { when_waited_for, at_once, either };

/// What the threads of the running block share.
class BlockRun {
 public:
  BlockRun(Fibers& pool, gpu::Grid launched, int count, Landing copies_land, std::uint64_t seed)
      : fibers(pool),
        grid(launched),
        threads(count),
        landing(copies_land),
        random(seed),
        mail(static_cast<std::size_t>(count / gpu::kWarp)),
        copies(static_cast<std::size_t>(count)) {
    void* memory = nullptr;
    // its very size, so that AddressSanitizer sees what is outside
    if (posix_memalign(&memory, 128, std::max<std::size_t>(launched.shared_bytes, 1)) != 0)
      throw std::bad_alloc();
    shared.reset(static_cast<std::byte*>(memory));
  }

  /// As it is when a block begins.
  void begin(int block) {
    index = block;
    barrier = {.first = 0, .size = threads};
    for (std::size_t warp = 0; warp < mail.size(); ++warp)
      mail[warp].meeting = {.first = static_cast<int>(warp) * gpu::kWarp, .size = gpu::kWarp};
    for (auto& pending : copies) pending = {};
    std::memset(shared.get(), 0xFF, grid.shared_bytes);
  }

  struct Copy {
    void* to;
    const void* from;
    int bytes;
    bool valid;

    void land() const {
      std::memset(to, 0, static_cast<std::size_t>(bytes));
      if (valid) std::memcpy(to, from, static_cast<std::size_t>(bytes));
    }
  };
  /// A thread's copies, in groups; the last group is open.
  using Copies = std::vector<std::vector<Copy>>;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  Fibers& fibers;
  gpu::Grid grid;
  int threads;
  Landing landing;
  Random random;
  int index = 0;
  Meeting barrier;
  std::vector<WarpMail> mail;
  std::vector<Copies> copies;
  std::unique_ptr<std::byte, Free> shared;
};

class FiberBlock {
 public:
  FiberBlock(BlockRun& run, int thread) : run_(run), thread_(thread) {}

  int thread() const { return thread_; }
  int threads() const { return run_.threads; }
  int index() const { return run_.index; }
  int blocks() const { return run_.grid.blocks; }
  FiberWarp warp() const {
    return {run_.fibers, run_.mail[static_cast<std::size_t>(warp_index())], thread_};
  }
  int warp_index() const { return thread_ / gpu::kWarp; }
  int warps() const { return run_.threads / gpu::kWarp; }
  void sync(Caller site = Caller::here()) const {
    run_.fibers.meet(thread_, run_.barrier, "sync of the block", site);
  }
  std::byte* shared() const { return run_.shared.get(); }

  template <int kBytes = 16>
  void copy_async(void* to, const void* from, bool valid = true) const {
    static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "copy_async: 4, 8 or 16 bytes");
    const auto* at = static_cast<std::byte*>(to);
    if (at < shared() || at + kBytes > shared() + run_.grid.shared_bytes)
      throw SimtError("copy_async: the target is not in shared memory");
    if (std::bit_cast<std::uintptr_t>(to) % kBytes != 0 ||
        std::bit_cast<std::uintptr_t>(from) % kBytes != 0)
      throw SimtError(kvast::detail::join_text("copy_async: a side is not aligned to ", kBytes));
    const BlockRun::Copy copy{to, from, kBytes, valid};
    if (run_.landing == Landing::at_once ||
        (run_.landing == Landing::either && run_.random.chance(0.5)))
      return copy.land();
    if (mine().empty()) mine().emplace_back();
    mine().back().push_back(copy);
  }
  void commit_copies() const {
    if (mine().empty()) mine().emplace_back();
    mine().emplace_back();
  }
  template <int kNewest>
  void wait_copies() const {
    BlockRun::Copies& groups = mine();
    while (static_cast<int>(groups.size()) - 1 > kNewest) {
      for (const BlockRun::Copy& copy : groups.front()) copy.land();
      groups.erase(groups.begin());
    }
  }

  // Fibers change only where they meet, so these are atomic as they stand.
  template <class Value>
  Value fetch_add(Value* at, Value value) const {
    const Value before = *at;
    *at += value;
    return before;
  }
  unsigned fetch_or(unsigned* at, unsigned value) const {
    const unsigned before = *at;
    *at |= value;
    return before;
  }
  unsigned fetch_and(unsigned* at, unsigned value) const {
    const unsigned before = *at;
    *at &= value;
    return before;
  }
  template <class Value>
  Value compare_exchange(Value* at, Value expected, Value wanted) const {
    const Value before = *at;
    if (before == expected) *at = wanted;
    return before;
  }
  void fence() const {}

 private:
  BlockRun::Copies& mine() const { return run_.copies[static_cast<std::size_t>(thread_)]; }

  BlockRun& run_;
  int thread_;
};

}  // namespace kvast::test
