// SPDX-License-Identifier: Apache-2.0
// Memory of a cache's own that grows with what it is asked for.
#pragma once

#include <algorithm>
#include <vector>

#include "kvast/gpu/pool.cuh"

namespace kvast::gpu {

/// Places of arrays in one piece of memory, each aligned to 64 bytes.
class Rooms {
 public:
  /// Where an array of `count` elements of `each` bytes begins.
  std::size_t add(std::int64_t count, std::size_t each) {
    const std::size_t begin = bytes_;
    bytes_ += (static_cast<std::size_t>(count) * each + 63) / 64 * 64;
    return begin;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

/// What it outgrew stays until it is told to forget: a captured pass may point there.
template <class DeviceType>
class Scratch {
 public:
  explicit Scratch(Pool<DeviceType>& pool) : pool_(pool) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    forget();
    if (memory_ != nullptr) pool_.release(memory_);
  }

  /// At least so many bytes, with whatever is in them. Where it fails nothing has changed.
  Status provide(std::size_t bytes) {
    if (bytes <= size_) return {};
    outgrown_.reserve(outgrown_.size() + 1);
    // half as much again: what is outgrown stays, and must not be many pieces
    if (grow(std::max(bytes, size_ + size_ / 2))) return {};
    return grow(bytes);
  }
  template <class Value>
  Value* at(std::size_t begin) const {
    return reinterpret_cast<Value*>(static_cast<std::byte*>(memory_) + begin);
  }
  /// All that it holds.
  std::size_t bytes() const { return all_; }
  /// Nobody points to what was outgrown any more.
  void forget() {
    for (void* memory : outgrown_) pool_.release(memory);
    outgrown_.clear();
    all_ = size_;
  }
  Pool<DeviceType>& pool() const { return pool_; }

 private:
  Status grow(std::size_t bytes) {
    void* memory = nullptr;
    if (Status status = pool_.allocate(memory, bytes); !status) return status;
    if (memory_ != nullptr) outgrown_.push_back(memory_);
    memory_ = memory;
    size_ = bytes;
    all_ += bytes;
    return {};
  }

  Pool<DeviceType>& pool_;
  void* memory_ = nullptr;
  std::size_t size_ = 0;
  std::size_t all_ = 0;
  std::vector<void*> outgrown_;
};

}  // namespace kvast::gpu
