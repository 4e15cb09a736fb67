// SPDX-License-Identifier: Apache-2.0
// Random: the control that every other policy must beat.
#pragma once

#include <cstdint>

#include "kvast/core/check_policy.h"
#include "kvast/core/random.h"

namespace kvast {

/// Keeps a uniformly random subset, other tokens in each head and layer, and the newest. A token's
/// lot never changes, so what was kept once is kept as long as its lot is among the best.
/// State: none.
struct Random {
  int tokens_kept = 512;  ///< budget per head
  int recent = 0;         ///< newest tokens, always kept
  std::uint64_t seed = 1;
  When when = When::step();
  static constexpr Needs needs{};
  struct State {};

  KVAST_HD float rank(Token t, State) const {
    const std::uint32_t lot =
        mix_bits(seed, {static_cast<std::uint32_t>(t.layer), static_cast<std::uint32_t>(t.head),
                        static_cast<std::uint32_t>(t.position)});
    return t.age < recent ? kPin : static_cast<float>(lot >> 8U);
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const { check_kept("Random", tokens_kept, recent, caller); }
};
static_assert(check_policy<Random>());

}  // namespace kvast
