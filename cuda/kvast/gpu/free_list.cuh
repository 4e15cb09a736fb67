// SPDX-License-Identifier: Apache-2.0
// Free blocks of one size, in device memory: kernels take and give them without the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kvast/gpu/block.cuh"

namespace kvast::gpu {

using Word = unsigned long long;  // as CUDA's atomics have it

/// A stack whose links stand in the free blocks themselves. `top` is an address in units of 32
/// bytes below 16 bits that change with every take, so that a block that was taken and given back
/// in between is noticed. Any number of threads of any kernels may use it at the same time.
struct FreeList {
  Word top = 0;
};

/// What a cache keeps track of on the device, and what the host learns of it one step late.
struct Counters {
  static constexpr int kClasses = 16;
  int in_use[kClasses] = {};  ///< blocks of each of the cache's sizes
  int missing = 0;   ///< blocks that a kernel did not get: a mistake of ours, and the cache is lost
  int refused = 0;   ///< numbers that were not finite or too large for the storage
  int step = 0;      ///< passes that are over
  int brought = 0;   ///< tokens of all sequences in them, modulo 2^32
  int unsealed = 0;  ///< tokens of all sequences that came since each was last sealed
  int longest = 0;   ///< blocks of the longest list that a head ever had
  int check = 0;     ///< of all above: the host may read while it is being written

  /// Changes that cancel out in a plain sum, as of blocks that move between sizes, do not here.
  KVAST_HD int sum() const {
    unsigned total = 0;
    const auto add = [&total](int count) { total = total * 31U + static_cast<unsigned>(count); };
    for (const int count : in_use) add(count);
    add(missing);
    add(refused);
    add(step);
    add(brought);
    add(unsealed);
    add(longest);
    return static_cast<int>(total);
  }
};

/// One size of blocks, as a kernel sees it.
struct BlockClass {
  FreeList* list = nullptr;
  int* in_use = nullptr;  ///< in the cache's Counters
  int* missing = nullptr;
  std::int64_t bytes = 0;  ///< of a block, a multiple of 32
};

namespace detail {

inline constexpr Word kAddress = (Word{1} << 48) - 1;

KVAST_HD inline std::byte* address_of(Word word) {
  return reinterpret_cast<std::byte*>((word & kAddress) << 5U);
}
KVAST_HD inline Word word_of(const std::byte* block, Word before) {
  return (reinterpret_cast<Word>(block) >> 5U) | (((before >> 48U) + 1) << 48U);
}

}  // namespace detail

/// Takes a block, with whatever is in it; null where there is none, which the host's reservations
/// exclude.
template <class Block>
KVAST_HD std::byte* take_block(const Block& block, const BlockClass& from) {
  Word top = block.compare_exchange(&from.list->top, Word{0}, Word{0});
  for (;;) {
    std::byte* first = detail::address_of(top);
    if (first == nullptr) {
      block.fetch_add(from.missing, 1);
      return nullptr;
    }
    block.fence();  // the link was written before the block was given
    const Word next = *reinterpret_cast<const volatile Word*>(first);
    const Word wanted = detail::word_of(detail::address_of(next), top);
    const Word seen = block.compare_exchange(&from.list->top, top, wanted);
    if (seen == top) {
      block.fetch_add(from.in_use, 1);
      return first;
    }
    top = seen;
  }
}

/// Gives back a chain of free blocks, from `first` to `last`, that are linked already.
template <class Block>
KVAST_HD void give_chain(const Block& block, FreeList* list, std::byte* first, std::byte* last) {
  Word top = block.compare_exchange(&list->top, Word{0}, Word{0});
  for (;;) {
    *reinterpret_cast<volatile Word*>(last) = top & detail::kAddress;
    block.fence();
    const Word seen = block.compare_exchange(&list->top, top, detail::word_of(first, top));
    if (seen == top) return;
    top = seen;
  }
}

/// Gives back a block that nobody reads any more.
template <class Block>
KVAST_HD void give_block(const Block& block, const BlockClass& to, std::byte* freed) {
  give_chain(block, to.list, freed, freed);
  block.fetch_add(to.in_use, -1);
}

/// Cuts new memory into free blocks.
struct AddSlab {
  static constexpr int kThreads = 256;
  FreeList* list = nullptr;
  std::byte* memory = nullptr;  ///< aligned to 32 bytes
  std::int64_t bytes = 0;       ///< of a block
  std::int64_t count = 0;       ///< at least 1

  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    for (std::int64_t at = block.thread(); at < count - 1; at += block.threads()) {
      *reinterpret_cast<Word*>(memory + at * bytes) =
          reinterpret_cast<Word>(memory + (at + 1) * bytes) >> 5U;
    }
    block.fence();
    block.sync();
    if (block.thread() == 0) give_chain(block, list, memory, memory + (count - 1) * bytes);
  }
};

}  // namespace kvast::gpu
