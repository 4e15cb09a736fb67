// SPDX-License-Identifier: Apache-2.0
// The slab pool: every byte of a cache (payload and side table) comes from here and goes back here.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <span>
#include <vector>

#include "kvast/core/allocator.h"
#include "kvast/core/error.h"
#include "kvast/core/status.h"

namespace kvast {

struct PoolOptions {
  std::size_t byte_limit =
      std::numeric_limits<std::size_t>::max();     ///< of slabs, i.e. of real memory
  std::size_t slab_bytes = std::size_t{1} << 21U;  ///< largest slab; a power of two, at least 4096
  Allocator allocator = heap_allocator();
};

/// Blocks of a few sizes, cut from slabs; reference counted, zeroed when handed out, aligned to 64
/// bytes (those of less than 512 to 32). One pool serves all heads, layers, sequences and caches
/// that are to share memory, from any thread. It must outlive every cache on it. A cache reserves
/// before it changes anything, so that taking a block cannot fail.
class BlockPool {
 public:
  /// `count` blocks of `bytes` bytes.
  struct Request {
    std::size_t bytes;
    std::int64_t count;
  };

  /// Blocks that are promised but not yet handed out; its owner gives back what it did not take by
  /// `settle`.
  class Reservation {
    friend class BlockPool;
    std::vector<std::int64_t> promised_;  // by size class
  };

  explicit BlockPool(const PoolOptions& options = {}, Caller caller = Caller::here())
      : options_(options) {
    require(std::has_single_bit(options.slab_bytes) && options.slab_bytes >= 4096, caller,
            "pool: slab_bytes is ", options.slab_bytes, ", must be a power of two, at least 4096");
    require(options.allocator.allocate != nullptr && options.allocator.release != nullptr, caller,
            "pool: allocator needs both functions");
  }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool() {
    for (Slab* slab : slabs_) free_slab(slab);
  }

  /// Bytes of all blocks that are handed out now.
  std::size_t bytes_in_use() const { return in_use_.load(std::memory_order_relaxed); }
  /// Bytes of all slabs: what the allocator underneath has given.
  std::size_t bytes_held() const {
    const std::lock_guard lock(mutex_);
    return held_;
  }

  /// What a block of `bytes` is charged as. Side records are small and many: rounding those to 64
  /// bytes would add a fifth to them.
  static std::size_t charged(std::size_t bytes) {
    const std::size_t unit = bytes < kSmall ? kAlign / 2 : kAlign;
    return (bytes + unit - 1) / unit * unit;
  }

  /// Adds to `reservation`, all or nothing.
  Status reserve(Reservation& reservation, std::span<const Request> requests) {
    const std::lock_guard lock(mutex_);
    for (std::size_t done = 0; done < requests.size(); ++done) {
      if (Status status = promise(reservation, requests[done]); !status) {
        for (const Request& undo : requests.first(done)) {
          const std::size_t index = class_of(undo.bytes);
          classes_[index].reserved -= undo.count;
          reservation.promised_[index] -= undo.count;
        }
        return status;
      }
    }
    return {};
  }

  /// One reserved block, zeroed, with one reference.
  std::byte* take(Reservation& reservation, std::size_t bytes) {
    std::byte* block = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const std::size_t index = class_of(bytes);
      require(index < reservation.promised_.size() && reservation.promised_[index] > 0,
              Caller::here(), "pool: a block of ", bytes, " bytes was taken without reservation");
      --reservation.promised_[index];
      --classes_[index].reserved;
      block = pop(index);
      in_use_.fetch_add(classes_[index].bytes, std::memory_order_relaxed);
    }
    std::memset(block, 0, charged(bytes));
    return block;
  }

  /// Gives back what was promised and not taken.
  void settle(Reservation& reservation) {
    const std::lock_guard lock(mutex_);
    for (std::size_t index = 0; index < reservation.promised_.size(); ++index) {
      classes_[index].reserved -= reservation.promised_[index];
      reservation.promised_[index] = 0;
    }
  }

  /// One more owner.
  void share(std::byte* block) { count_of(block).fetch_add(1, std::memory_order_relaxed); }
  bool is_shared(std::byte* block) { return count_of(block).load(std::memory_order_acquire) > 1; }

  /// One owner less; the last one frees the block, and `reservation` is promised it again: what is
  /// freed within a pass may be taken within the pass.
  void release(std::byte* block, Reservation& reservation) {
    if (count_of(block).fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const std::lock_guard lock(mutex_);
    const std::size_t index = slab_of(block)->size_class;
    push(block);
    if (reservation.promised_.size() <= index) reservation.promised_.resize(index + 1);
    ++reservation.promised_[index];
    ++classes_[index].reserved;
  }

  /// Returns slabs without blocks to the allocator underneath. Promised blocks stay available.
  void trim() {
    const std::lock_guard lock(mutex_);
    trim_locked();
  }

 private:
  static constexpr std::size_t kAlign = 64;
  static constexpr std::size_t kSmall = 512;
  static constexpr std::size_t kFirstSlab = std::size_t{1} << 16U;
  static constexpr std::uint32_t kNone = 0xFFFFFFFFU;

  struct SizeClass;

  // Lies at the start of its slab. Slabs are aligned to slab_bytes, so a block's slab is found by
  // masking.
  struct Slab {
    std::size_t bytes = 0;
    std::size_t first_block = 0;  // offset
    std::uint32_t size_class = 0;
    std::uint32_t capacity = 0;  // blocks
    std::uint32_t used = 0;      // blocks handed out
    std::uint32_t fresh = 0;     // blocks never handed out start here: their pages stay untouched
    std::uint32_t free_head = kNone;
    Slab* next_open = nullptr;  // slabs with free blocks, per class
    Slab* previous_open = nullptr;
    bool open = false;
  };

  struct SizeClass {
    std::size_t bytes = 0;
    std::int64_t free = 0;  // blocks in its slabs that are not handed out, promised ones included
    std::int64_t reserved = 0;
    std::size_t held = 0;  // bytes of its slabs
    Slab* open = nullptr;
  };

  static std::atomic<std::uint32_t>* counts(Slab* slab) {
    return reinterpret_cast<std::atomic<std::uint32_t>*>(reinterpret_cast<std::byte*>(slab) +
                                                         sizeof(Slab));
  }
  Slab* slab_of(std::byte* block) const {
    const auto address = reinterpret_cast<std::uintptr_t>(block);
    return reinterpret_cast<Slab*>(address & ~(options_.slab_bytes - 1));
  }
  std::uint32_t index_in(Slab* slab, std::byte* block) const {
    const auto offset = static_cast<std::size_t>(block - reinterpret_cast<std::byte*>(slab));
    return static_cast<std::uint32_t>((offset - slab->first_block) /
                                      classes_[slab->size_class].bytes);
  }
  std::byte* block_at(Slab* slab, std::uint32_t index) const {
    return reinterpret_cast<std::byte*>(slab) + slab->first_block +
           index * classes_[slab->size_class].bytes;
  }
  std::atomic<std::uint32_t>& count_of(std::byte* block) {
    Slab* slab = slab_of(block);
    const auto offset = static_cast<std::size_t>(block - reinterpret_cast<std::byte*>(slab));
    return counts(slab)[(offset - slab->first_block) / slab_class_bytes(slab)];
  }
  std::size_t slab_class_bytes(Slab* slab) const {
    return (slab->bytes - slab->first_block) / slab->capacity;
  }

  std::size_t class_of(std::size_t bytes) {
    const std::size_t size = charged(bytes);
    for (std::size_t index = 0; index < classes_.size(); ++index) {
      if (classes_[index].bytes == size) return index;
    }
    classes_.push_back({.bytes = size});
    return classes_.size() - 1;
  }

  Status promise(Reservation& reservation, const Request& request) {
    const std::size_t index = class_of(request.bytes);
    if (reservation.promised_.size() <= index) reservation.promised_.resize(index + 1);
    while (classes_[index].free - classes_[index].reserved < request.count) {
      if (!grow(index, request.count)) {
        return {StatusCode::pool_exhausted,
                detail::join_text("pool: ", request.count, " blocks of ", classes_[index].bytes,
                                  " bytes asked, ", bytes_in_use(), " bytes in use, ", held_,
                                  " held, limit ", options_.byte_limit)};
      }
    }
    classes_[index].reserved += request.count;
    reservation.promised_[index] += request.count;
    return {};
  }

  // Slabs of a class double up to slab_bytes, so that a class with few blocks holds little.
  bool grow(std::size_t index, std::int64_t wanted) {
    const std::size_t block = classes_[index].bytes;
    if (wanted > std::numeric_limits<std::int64_t>::max() / static_cast<std::int64_t>(block))
      return false;
    std::size_t bytes = std::max(std::bit_floor(classes_[index].held), kFirstSlab);
    bytes = std::min({bytes, options_.slab_bytes});
    auto capacity =
        static_cast<std::uint32_t>((bytes - sizeof(Slab)) / (block + sizeof(std::uint32_t)));
    std::size_t first = 0;
    for (;; --capacity) {
      if (capacity == 0) capacity = 1;
      first = (sizeof(Slab) + capacity * sizeof(std::uint32_t) + kAlign - 1) / kAlign * kAlign;
      if (capacity == 1 || first + capacity * block <= bytes) break;
    }
    const std::size_t total = first + capacity * block;
    if (total > options_.byte_limit || held_ > options_.byte_limit - total) {
      trim_locked(index);
      if (total > options_.byte_limit || held_ > options_.byte_limit - total) return false;
    }
    void* memory = allocate_slab(total, index);
    if (memory == nullptr) return false;
    Slab* slab = new (memory) Slab{.bytes = total,
                                   .first_block = first,
                                   .size_class = static_cast<std::uint32_t>(index),
                                   .capacity = capacity};
    for (std::uint32_t at = 0; at < capacity; ++at)
      new (counts(slab) + at) std::atomic<std::uint32_t>(0);
    slabs_.push_back(slab);
    held_ += total;
    classes_[index].held += total;
    classes_[index].free += capacity;
    open(slab);
    return true;
  }

  void* allocate_slab(std::size_t bytes, std::size_t index) {
    const Allocator& from = options_.allocator;
    void* memory = from.allocate(from.context, bytes, options_.slab_bytes);
    if (memory == nullptr) {
      trim_locked(index);
      memory = from.allocate(from.context, bytes, options_.slab_bytes);
    }
    return memory;
  }

  void free_slab(Slab* slab) {
    options_.allocator.release(options_.allocator.context, slab, slab->bytes, options_.slab_bytes);
  }

  // Where a class grows, its own free blocks are wanted: returning them would make room for ever.
  void trim_locked(std::size_t growing = std::numeric_limits<std::size_t>::max()) {
    std::erase_if(slabs_, [&](Slab* slab) {
      SizeClass& size = classes_[slab->size_class];
      if (slab->size_class == growing) return false;
      if (slab->used != 0 || size.free - slab->capacity < size.reserved) return false;
      close(slab);
      size.free -= slab->capacity;
      size.held -= slab->bytes;
      held_ -= slab->bytes;
      free_slab(slab);
      return true;
    });
  }

  void open(Slab* slab) {
    SizeClass& size = classes_[slab->size_class];
    slab->previous_open = nullptr;
    slab->next_open = size.open;
    if (size.open != nullptr) size.open->previous_open = slab;
    size.open = slab;
    slab->open = true;
  }
  void close(Slab* slab) {
    if (!slab->open) return;
    SizeClass& size = classes_[slab->size_class];
    if (slab->next_open != nullptr) slab->next_open->previous_open = slab->previous_open;
    (slab->previous_open != nullptr ? slab->previous_open->next_open : size.open) = slab->next_open;
    slab->open = false;
  }

  std::byte* pop(std::size_t index) {
    Slab* slab = classes_[index].open;
    std::byte* block = nullptr;
    if (slab->free_head != kNone) {
      block = block_at(slab, slab->free_head);
      std::memcpy(&slab->free_head, block, sizeof(std::uint32_t));
    } else {
      block = block_at(slab, slab->fresh++);
    }
    --classes_[index].free;
    if (++slab->used == slab->capacity) close(slab);
    counts(slab)[index_in(slab, block)].store(1, std::memory_order_relaxed);
    return block;
  }

  void push(std::byte* block) {
    Slab* slab = slab_of(block);
    std::memcpy(block, &slab->free_head, sizeof(std::uint32_t));
    slab->free_head = index_in(slab, block);
    --slab->used;
    ++classes_[slab->size_class].free;
    if (!slab->open) open(slab);
    in_use_.fetch_sub(classes_[slab->size_class].bytes, std::memory_order_relaxed);
  }

  PoolOptions options_;
  mutable std::mutex mutex_;
  std::vector<SizeClass> classes_;
  std::vector<Slab*> slabs_;
  std::size_t held_ = 0;
  std::atomic<std::size_t> in_use_{0};
};

}  // namespace kvast
