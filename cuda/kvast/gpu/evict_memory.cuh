// SPDX-License-Identifier: Apache-2.0
// Memory of select for policies whose tokens or heads are judged together.
#pragma once

#include "kvast/gpu/allocate.cuh"
#include "kvast/gpu/pool.cuh"

namespace kvast::gpu {

/// Votes of one layer, which all layers use in turn, and what heads that share a budget stake.
template <class DeviceType>
class EvictMemory {
 public:
  explicit EvictMemory(Pool<DeviceType>& pool) : pool_(pool) {}
  EvictMemory(const EvictMemory&) = delete;
  EvictMemory& operator=(const EvictMemory&) = delete;
  ~EvictMemory() {
    if (memory_ != nullptr) pool_.release(memory_);
  }

  std::size_t bytes() const { return bytes_; }

  /// For `tables` heads of a layer that have at most `most_votes` live tokens each, and
  /// `all_stakes` heads of all layers. 0: not wanted. Where it fails nothing has changed.
  Status provide(int tables, std::int64_t most_votes, std::int64_t all_stakes) {
    if (most_votes <= stride && all_stakes <= stakes_) return {};
    const std::int64_t wanted = most_of(most_votes, stride);
    std::size_t end = 0;
    const auto room = [&end](std::int64_t count, std::size_t each) {
      const std::size_t begin = end;
      end += (static_cast<std::size_t>(count) * each + 63) / 64 * 64;
      return begin;
    };
    const std::size_t at_votes = room(tables * wanted, sizeof(float));
    const std::size_t at_stakes = room(all_stakes, sizeof(Stake));
    const std::size_t at_rivals = room(all_stakes, sizeof(AllocateBudget::Rivals));
    void* memory = nullptr;
    if (Status status = pool_.allocate(memory, end); !status) return status;
    if (memory_ != nullptr) pool_.release(memory_);
    memory_ = memory;
    bytes_ = end;
    stride = wanted;
    stakes_ = all_stakes;
    auto* base = static_cast<std::byte*>(memory);
    votes = reinterpret_cast<float*>(base + at_votes);
    stakes = reinterpret_cast<Stake*>(base + at_stakes);
    rivals = reinterpret_cast<AllocateBudget::Rivals*>(base + at_rivals);
    return {};
  }

  float* votes = nullptr;  ///< [tables, stride]
  std::int64_t stride = 0;
  Stake* stakes = nullptr;  ///< [layers, most tables]
  AllocateBudget::Rivals* rivals = nullptr;

 private:
  Pool<DeviceType>& pool_;
  std::int64_t stakes_ = 0;
  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace kvast::gpu
