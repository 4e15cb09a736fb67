// SPDX-License-Identifier: Apache-2.0
// Sets of layers and of heads, small enough to travel into a kernel.
#pragma once

#include <cstdint>

#include "kvast/core/error.h"
#include "kvast/core/host_device.h"

namespace kvast {

/// A set of layers, 0 to 255.
struct LayerSet {
  static constexpr int kMost = 256;
  std::uint64_t words[kMost / 64] = {};

  KVAST_HD constexpr bool contains(int layer) const {
    return layer >= 0 && layer < kMost && ((words[layer / 64] >> (layer % 64)) & 1U) != 0;
  }
  /// Throws Error for a layer that the set cannot hold.
  constexpr LayerSet& add(int layer, Caller caller = Caller::here()) {
    if (layer < 0 || layer >= kMost)
      fail(caller, "LayerSet: layer is ", layer, ", must lie in [0, ", kMost, ")");
    words[layer / 64] |= std::uint64_t{1} << (layer % 64);
    return *this;
  }
  /// One more than the last layer of the set; 0 for none.
  constexpr int end() const {
    int layer = kMost;
    while (layer > 0 && !contains(layer - 1)) --layer;
    return layer;
  }
  /// The first `count` layers, in [0, 256].
  static constexpr LayerSet first(int count, Caller caller = Caller::here()) {
    if (count < 0 || count > kMost)
      fail(caller, "LayerSet: count is ", count, ", must lie in [0, ", kMost, "]");
    LayerSet set;
    for (int layer = 0; layer < count; ++layer) set.add(layer, caller);
    return set;
  }
};

/// Heads of one layer, those that a part of a policy decides for: `listed` of the first 128, or all
/// others.
struct HeadMask {
  std::uint64_t words[2] = {};
  bool listed = false;

  KVAST_HD constexpr bool contains(int head) const {
    const bool named = head < 128 && ((words[head / 64] >> (head % 64)) & 1U) != 0;
    return named == listed;
  }
};

/// A set of kv heads, each of one layer: layers 0 to 127, heads 0 to 127 of each.
struct HeadSet {
  static constexpr int kMost = 128;
  std::uint64_t words[kMost][2] = {};

  KVAST_HD constexpr bool contains(int layer, int head) const {
    return layer >= 0 && layer < kMost && head >= 0 && head < kMost &&
           ((words[layer][head / 64] >> (head % 64)) & 1U) != 0;
  }
  /// One more than the last head that the set has of a layer; 0 for none.
  constexpr int end(int layer) const {
    int head = kMost;
    while (head > 0 && !contains(layer, head - 1)) --head;
    return head;
  }
  /// Throws Error for a layer or a head that the set cannot hold.
  constexpr HeadSet& add(int layer, int head, Caller caller = Caller::here()) {
    if (layer < 0 || layer >= kMost || head < 0 || head >= kMost)
      fail(caller, "HeadSet: layer and head are ", layer, " and ", head, ", must lie in [0, ",
           kMost, ")");
    words[layer][head / 64] |= std::uint64_t{1} << (head % 64);
    return *this;
  }
};

/// Every head, for policies that are not made of others by head.
struct AllHeads {
  static constexpr bool listed = false;
  KVAST_HD constexpr bool contains(int, int) const { return true; }
  constexpr HeadMask of(int) const { return {}; }
};

/// Heads of one of two parts: those of a set, or the rest.
struct PartHeads {
  HeadSet heads;
  bool listed = false;

  KVAST_HD constexpr bool contains(int layer, int head) const {
    return heads.contains(layer, head) == listed;
  }
  constexpr HeadMask of(int layer) const {
    if (layer >= HeadSet::kMost) return {.listed = listed};
    return {{heads.words[layer][0], heads.words[layer][1]}, listed};
  }
};

}  // namespace kvast
