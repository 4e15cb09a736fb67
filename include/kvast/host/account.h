// SPDX-License-Identifier: Apache-2.0
// One cache's account with the pool: what it reserved for this pass, and what it holds.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "kvast/core/pool.h"

namespace kvast {

/// `take` and `give` may be called from several tasks at once.
class Account {
 public:
  explicit Account(BlockPool& pool) : pool_(&pool) {}

  BlockPool& pool() const { return *pool_; }
  std::size_t bytes_in_use() const { return held_.load(std::memory_order_relaxed); }

  Status reserve(std::span<const BlockPool::Request> requests) {
    return pool_->reserve(reservation_, requests);
  }
  /// Ends a pass: what was reserved and not taken is anybody's again.
  void settle() { pool_->settle(reservation_); }

  std::byte* take(std::size_t bytes) {
    std::byte* block = pool_->take(reservation_, bytes);
    held_.fetch_add(BlockPool::charged(bytes), std::memory_order_relaxed);
    return block;
  }
  void give(std::byte* block, std::size_t bytes) {
    if (block == nullptr) return;
    pool_->release(block, reservation_);
    held_.fetch_sub(BlockPool::charged(bytes), std::memory_order_relaxed);
  }
  /// Becomes one more owner of a block that another cache took.
  void share(std::byte* block, std::size_t bytes) {
    if (block == nullptr) return;
    pool_->share(block);
    held_.fetch_add(BlockPool::charged(bytes), std::memory_order_relaxed);
  }

 private:
  BlockPool* pool_;
  BlockPool::Reservation reservation_;
  std::atomic<std::size_t> held_{0};
};

}  // namespace kvast
