// SPDX-License-Identifier: Apache-2.0
// L2Norm: keys of small norm draw attention. Needs no weights, so it works beside any attention
// kernel.
#pragma once

#include <cstdint>

#include "kvast/core/check_policy.h"

namespace kvast {

/// A set of layers, small enough to travel into a kernel.
struct LayerSet {
  std::uint64_t words[4] = {};  ///< layers 0 to 255

  KVAST_HD constexpr bool contains(int layer) const {
    return layer >= 0 && layer < 256 && ((words[layer / 64] >> (layer % 64)) & 1U) != 0;
  }
  /// Throws Error for a layer that the set cannot hold.
  constexpr LayerSet& add(int layer, Caller caller = Caller::here()) {
    if (layer < 0 || layer >= 256)
      fail(caller, "LayerSet: layer is ", layer, ", must lie in [0, 256)");
    words[layer / 64] |= std::uint64_t{1} << (layer % 64);
    return *this;
  }
  /// The first `count` layers.
  static constexpr LayerSet first(int count, Caller caller = Caller::here()) {
    LayerSet set;
    for (int layer = 0; layer < count; ++layer) set.add(layer, caller);
    return set;
  }
};

/// Keeps the keys of smallest L2 norm.
/// Ref: arXiv:2406.11430, §3.   State: 4 bytes per token and head (the norm, taken when the key
/// arrives). The authors protect nothing and skip the first two layers; they cut 2 % whenever the
/// cache is full.
struct L2Norm {
  int tokens_kept = 512;               ///< budget per head
  int recent = 0;                      ///< newest tokens, always kept; not in the paper
  LayerSet skip = LayerSet::first(2);  ///< layers that keep everything
  When when = When::full(10);
  static constexpr Needs needs{.key_norms = true};
  struct State {};

  KVAST_HD float rank(Token t, State) const { return t.age < recent ? kPin : -t.key_norm; }
  Budget budget(Layer layer) const {
    return skip.contains(layer.index) ? kNoBudget : tokens(tokens_kept);
  }
  int pins() const { return recent; }
  void validate(Caller caller) const { check_kept("L2Norm", tokens_kept, recent, caller); }
};
static_assert(check_policy<L2Norm>());

}  // namespace kvast
