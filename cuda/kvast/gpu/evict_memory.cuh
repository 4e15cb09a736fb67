// SPDX-License-Identifier: Apache-2.0
// Memory of rank and select for policies whose tokens or heads are judged together.
#pragma once

#include "kvast/gpu/allocate.cuh"
#include "kvast/gpu/scratch.cuh"

namespace kvast::gpu {

/// A word for each token of one layer, which all layers use in turn, and what heads that share a
/// budget stake.
template <class DeviceType>
class EvictMemory {
 public:
  explicit EvictMemory(Pool<DeviceType>& pool) : scratch_(pool) {}

  std::size_t bytes() const { return scratch_.bytes(); }
  /// No captured pass is replayed any more.
  void forget() { scratch_.forget(); }

  /// For `tables` heads of a layer that have at most `tokens` live tokens each, and `all_tables`
  /// heads of all layers. Where it fails nothing has changed.
  Status provide(int tables, std::int64_t tokens, std::int64_t all_tables) {
    if (tokens <= stride && all_tables <= all_tables_) return {};
    const std::int64_t wanted = most_of(tokens, stride);
    Rooms rooms;
    const std::size_t at_votes = rooms.add(tables * wanted, sizeof(float));
    const std::size_t at_stakes = rooms.add(all_tables, sizeof(Stake));
    const std::size_t at_rivals = rooms.add(all_tables, sizeof(AllocateBudget::Rivals));
    if (Status status = scratch_.provide(rooms.bytes()); !status) return status;
    stride = wanted;
    all_tables_ = all_tables;
    votes = scratch_.template at<float>(at_votes);
    stakes = scratch_.template at<Stake>(at_stakes);
    rivals = scratch_.template at<AllocateBudget::Rivals>(at_rivals);
    return {};
  }

  /// For another use than votes, at another time.
  int* orders() const { return reinterpret_cast<int*>(votes); }

  float* votes = nullptr;  ///< [tables, stride]
  std::int64_t stride = 0;
  Stake* stakes = nullptr;  ///< [layers, most tables]
  AllocateBudget::Rivals* rivals = nullptr;

 private:
  Scratch<DeviceType> scratch_;
  std::int64_t all_tables_ = 0;
};

}  // namespace kvast::gpu
