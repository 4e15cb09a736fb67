// SPDX-License-Identifier: Apache-2.0
// Random: the control that every other policy must beat.
#pragma once

#include <cstdint>

#include "kvast/core/check_policy.h"

namespace kvast {

/// A well-mixed number from a seed and a token's place, the same on every machine and thread.
KVAST_HD constexpr std::uint32_t mix_bits(std::uint64_t seed, std::uint32_t layer,
                                          std::uint32_t head, std::uint32_t position) {
  std::uint64_t bits = seed;
  for (const std::uint32_t part : {0U, layer, head, position}) {  // 0: the seed is mixed as well
    bits = (bits ^ part) + 0x9E3779B97F4A7C15U;  // splitmix64 (Steele, Lea, Flood 2014)
    bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
    bits ^= bits >> 31U;
  }
  return static_cast<std::uint32_t>(bits >> 32U);
}

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
        mix_bits(seed, static_cast<std::uint32_t>(t.layer), static_cast<std::uint32_t>(t.head),
                 static_cast<std::uint32_t>(t.position));
    return t.age < recent ? kPin : static_cast<float>(lot >> 8U);
  }
  Budget budget(Layer) const { return tokens(tokens_kept); }
  int pins() const { return recent; }
  void validate(Caller caller) const { check_kept("Random", tokens_kept, recent, caller); }
};
static_assert(check_policy<Random>());

}  // namespace kvast
