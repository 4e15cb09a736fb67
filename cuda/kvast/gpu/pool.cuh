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
  Stream stream{};  ///< of all caches on this pool; the null stream cannot be captured
  Allocator<Stream> allocator{};  ///< empty: the device's
};

/// Blocks of a few sizes for all caches of one stream. The host promises blocks before kernels take
/// them, and grows the pool where more are promised than there are; so taking cannot fail, and no
/// kernel waits for the host. Memory goes back when the pool is destroyed, which must be after its
/// caches. One thread uses a pool and its caches at a time.
template <class DeviceType>
class Pool {
 public:
  using Device = DeviceType;
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
  /// Kernels may take so many more blocks; all or nothing. Where memory is missing, none that was
  /// got for it is kept.
  Status promise(std::span<const Promise> promises) {
    for (const Promise& one : promises) at(one.size_class).promised += one.blocks;
    slabs_.clear();
    Status status = prepare();
    for (const Promise& one : promises) {
      SizeClass& mine = at(one.size_class);
      while (status && mine.blocks < mine.promised)
        status.then([&] { return grow(one.size_class); });
    }
    // blocks of a slab that a list has stay there: kernels may have taken some
    std::size_t linked = 0;
    while (status && linked < slabs_.size()) {
      status.then([&] { return link(slabs_[linked]); });
      if (status) ++linked;
    }
    for (; linked < slabs_.size(); ++linked) {
      at(slabs_[linked].size_class).blocks -= slabs_[linked].count;
      release(slabs_[linked].memory);
    }
    if (!status) take_back(promises);
    return status;
  }
  /// They will take so many fewer.
  void take_back(std::span<const Promise> promises) {
    for (const Promise& one : promises) at(one.size_class).promised -= one.blocks;
  }

  /// Memory of a cache's own, counted here. Refused while the stream is capturing: it would be
  /// another one in each replay.
  Status allocate(void*& memory, std::size_t bytes) {
    if (DeviceType::capturing(options_.stream)) {
      return {StatusCode::device_failed,
              kvast::detail::join_text("pool: ", bytes,
                                       " bytes are wanted while the stream is capturing; reserve "
                                       "first, and let such a pass run once before its capture")};
    }
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
  /// launch(scratch), then `bytes` of the scratch to the host. Waits.
  template <class Launch>
  Status with_scratch(std::size_t bytes, void* to, const Launch& launch) {
    void* scratch = nullptr;
    if (Status status = allocate(scratch, bytes); !status) return status;
    Status status = launch(scratch);
    status.then([&] { return DeviceType::copy(to, scratch, bytes, options_.stream); });
    status.then([&] { return DeviceType::wait(options_.stream); });
    release(scratch);
    return status;
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
  struct Slab {
    int size_class = 0;
    void* memory = nullptr;
    std::int64_t count = 0;  // blocks
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

  // One more slab: as much as there is already, within bounds; or what is missing, if that is all
  // that can be had.
  Status grow(int size_class) {
    SizeClass& mine = at(size_class);
    constexpr std::size_t kFirstSlab = std::size_t{1} << 16U;
    const std::size_t have = static_cast<std::size_t>(mine.blocks) * mine.bytes;
    const std::size_t wanted =
        std::min(std::max(std::bit_floor(have | 1U), kFirstSlab), options_.slab_bytes);
    const auto usual = static_cast<std::int64_t>(std::max<std::size_t>(wanted / mine.bytes, 1));
    const std::int64_t least = std::min(usual, mine.promised - mine.blocks);
    Slab slab{.size_class = size_class, .count = usual};
    if (Status status = allocate(slab.memory, static_cast<std::size_t>(usual) * mine.bytes);
        !status) {
      if (least == usual) return status;
      slab.count = least;
      if (Status again = allocate(slab.memory, static_cast<std::size_t>(least) * mine.bytes);
          !again)
        return again;
    }
    slabs_.push_back(slab);
    mine.blocks += slab.count;
    return {};
  }
  Status link(const Slab& slab) {
    return DeviceType::launch(AddSlab{.list = list(slab.size_class),
                                      .memory = static_cast<std::byte*>(slab.memory),
                                      .bytes = static_cast<std::int64_t>(at(slab.size_class).bytes),
                                      .count = slab.count},
                              Grid{}, options_.stream);
  }

  PoolOptions<Stream> options_;
  FreeList* lists_ = nullptr;
  std::vector<SizeClass> classes_;
  std::vector<Memory> held_memory_;
  std::vector<Slab> slabs_;  // of the promise that is being made
  std::size_t held_ = 0;
};

}  // namespace kvast::gpu
