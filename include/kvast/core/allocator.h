// SPDX-License-Identifier: Apache-2.0
// Where slabs come from: aligned heap memory, or the caller's own functions.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace kvast {

/// Memory underneath a BlockPool. Both functions must be thread-safe and must not throw; `allocate`
/// returns null where there is none. `alignment` is a power of two and may be as large as a slab.
struct Allocator {
  void* context = nullptr;
  void* (*allocate)(void* context, std::size_t bytes, std::size_t alignment) = nullptr;
  void (*release)(void* context, void* memory, std::size_t bytes, std::size_t alignment) = nullptr;
};

/// The heap. On Linux large slabs ask for huge pages: attention streams them, and the TLB is small.
/// Small ones must not, or the first byte of each would take a whole huge page.
inline Allocator heap_allocator() {
  Allocator heap;
  heap.allocate = [](void*, std::size_t bytes, std::size_t alignment) -> void* {
    constexpr std::size_t kHugePage = std::size_t{1} << 21U;
    const std::size_t unit = std::min(alignment, std::size_t{4096});
    const std::size_t rounded = (bytes + unit - 1) / unit * unit;
    void* memory = nullptr;
    if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), rounded) != 0) return nullptr;
#if defined(__linux__)
    if (alignment >= kHugePage && rounded >= kHugePage) {
      (void)madvise(memory, rounded, MADV_HUGEPAGE);
    }
#endif
    return memory;
  };
  heap.release = [](void*, void* memory, std::size_t, std::size_t) { std::free(memory); };
  return heap;
}

}  // namespace kvast
