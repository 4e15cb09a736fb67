// SPDX-License-Identifier: Apache-2.0
// The device's slab pool: the host reserves, kernels take and give (free_list.cuh).
#pragma once

#include <algorithm>
#include <bit>
#include <limits>
#include <span>
#include <vector>

#include "kvast/gpu/device.h"
#include "kvast/gpu/free_list.cuh"

namespace kvast::gpu {

/// Memory underneath a pool, in place of the device's own. `allocate` returns memory aligned to 256
/// bytes, or null where there is none; both are ordered on `stream`, which is the pool's.
template <class Stream>
struct Allocator {
  void* context = nullptr;
  void* (*allocate)(void* context, std::size_t bytes, Stream stream) = nullptr;
  void (*release)(void* context, void* memory, std::size_t bytes, Stream stream) = nullptr;
};

template <class Stream>
struct PoolOptions {
  std::size_t byte_limit = std::numeric_limits<std::size_t>::max();  ///< of all memory held
  std::size_t slab_bytes = std::size_t{1} << 25U;  ///< largest slab; a power of two, at least 4096
  Stream stream{};                                 ///< of all caches on this pool
  Allocator<Stream> allocator{};                   ///< empty: the device's
};

/// Blocks of a few sizes for all caches of one stream. The host promises blocks before kernels take
/// them, and grows the pool where more are promised than there are; so taking cannot fail, and no
/// kernel waits for the host. Memory goes back when the pool is destroyed, which must be after its
/// caches. One thread uses a pool and its caches at a time.
template <class DeviceType>
class Pool {
 public:
  using Stream = typename DeviceType::Stream;
  static constexpr int kMostClasses = 64;

  explicit Pool(const PoolOptions<Stream>& options = {}, Caller caller = Caller::here())
      : options_(options) {
    require(std::has_single_bit(options.slab_bytes) && options.slab_bytes >= 4096, caller,
            "pool: slab_bytes is ", options.slab_bytes, ", must be a power of two, at least 4096");
    require((options.allocator.allocate == nullptr) == (options.allocator.release == nullptr),
            caller, "pool: allocator needs both functions, or none");
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() {
    for (const Memory& memory : held_memory_) release_raw(memory);
  }

  Stream stream() const { return options_.stream; }
  /// What the allocator underneath has given.
  std::size_t bytes_held() const { return held_; }

  /// The size class of blocks of `bytes`, rounded up to 64.
  int class_of(std::size_t bytes, Caller caller = Caller::here()) {
    const std::size_t size = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
    for (std::size_t at = 0; at < classes_.size(); ++at) {
      if (classes_[at].bytes == size) return static_cast<int>(at);
    }
    require(classes_.size() < kMostClasses, caller, "pool: more than ", kMostClasses,
            " sizes of blocks");
    classes_.push_back({.bytes = size});
    return static_cast<int>(classes_.size()) - 1;
  }
  std::size_t block_bytes(int size_class) const { return at(size_class).bytes; }

  /// Makes the free lists exist. Called by every cache before anything else.
  Status prepare() {
    if (lists_ != nullptr) return {};
    void* memory = nullptr;
    if (Status status = allocate(memory, kMostClasses * sizeof(FreeList)); !status) return status;
    if (Status status =
            DeviceType::fill(memory, 0, kMostClasses * sizeof(FreeList), options_.stream);
        !status) {
      release(memory);
      return status;
    }
    lists_ = static_cast<FreeList*>(memory);
    return {};
  }
  FreeList* list(int size_class) const { return lists_ + size_class; }

  struct Promise {
    int size_class = 0;
    std::int64_t blocks = 0;
  };
  /// Kernels may take so many more blocks; all or nothing.
  Status promise(std::span<const Promise> promises) {
    for (const Promise& one : promises) at(one.size_class).promised += one.blocks;
    Status status = prepare();
    for (const Promise& one : promises) {
      while (status && at(one.size_class).blocks < at(one.size_class).promised)
        status.then([&] { return grow(one.size_class); });
    }
    if (!status) take_back(promises);
    return status;
  }
  /// They will take so many fewer.
  void take_back(std::span<const Promise> promises) {
    for (const Promise& one : promises) at(one.size_class).promised -= one.blocks;
  }

  /// Memory of a cache's own, counted here.
  Status allocate(void*& memory, std::size_t bytes) {
    if (bytes > options_.byte_limit || held_ > options_.byte_limit - bytes) return exhausted(bytes);
    memory = nullptr;
    if (options_.allocator.allocate != nullptr) {
      memory = options_.allocator.allocate(options_.allocator.context, bytes, options_.stream);
      if (memory == nullptr) return exhausted(bytes);
    } else if (Status status = DeviceType::allocate(memory, bytes, options_.stream); !status) {
      return status;
    }
    held_memory_.push_back({memory, bytes});
    held_ += bytes;
    return {};
  }
  void release(void* memory) {
    const auto found = std::find_if(held_memory_.begin(), held_memory_.end(),
                                    [&](const Memory& one) { return one.at == memory; });
    if (found == held_memory_.end()) return;
    release_raw(*found);
    held_ -= found->bytes;
    held_memory_.erase(found);
  }

 private:
  struct SizeClass {
    std::size_t bytes = 0;
    std::int64_t blocks = 0;    // in slabs
    std::int64_t promised = 0;  // that kernels may hold
  };
  struct Memory {
    void* at = nullptr;
    std::size_t bytes = 0;
  };

  SizeClass& at(int size_class) { return classes_[static_cast<std::size_t>(size_class)]; }
  const SizeClass& at(int size_class) const {
    return classes_[static_cast<std::size_t>(size_class)];
  }

  Status exhausted(std::size_t bytes) const {
    return {StatusCode::pool_exhausted,
            kvast::detail::join_text("pool: ", bytes, " bytes asked of the device, ", held_,
                                     " held, limit ", options_.byte_limit)};
  }
  void release_raw(const Memory& memory) {
    if (options_.allocator.release != nullptr) {
      options_.allocator.release(options_.allocator.context, memory.at, memory.bytes,
                                 options_.stream);
    } else {
      DeviceType::release(memory.at, options_.stream);
    }
  }

  // One more slab: as much as there is already, within bounds.
  Status grow(int size_class) {
    SizeClass& mine = at(size_class);
    constexpr std::size_t kFirstSlab = std::size_t{1} << 16U;
    const std::size_t have = static_cast<std::size_t>(mine.blocks) * mine.bytes;
    const std::size_t wanted =
        std::min(std::max(std::bit_floor(have | 1U), kFirstSlab), options_.slab_bytes);
    const std::size_t count = std::max<std::size_t>(wanted / mine.bytes, 1);
    void* memory = nullptr;
    if (Status status = allocate(memory, count * mine.bytes); !status) return status;
    const AddSlab kernel{.list = list(size_class),
                         .memory = static_cast<std::byte*>(memory),
                         .bytes = static_cast<std::int64_t>(mine.bytes),
                         .count = static_cast<std::int64_t>(count)};
    if (Status status = DeviceType::launch(kernel, Grid{}, options_.stream); !status) {
      release(memory);
      return status;
    }
    mine.blocks += static_cast<std::int64_t>(count);
    return {};
  }

  PoolOptions<Stream> options_;
  FreeList* lists_ = nullptr;
  std::vector<SizeClass> classes_;
  std::vector<Memory> held_memory_;
  std::size_t held_ = 0;
};

}  // namespace kvast::gpu
