// SPDX-License-Identifier: Apache-2.0
// Random numbers that are a function of their place: the same on every machine and thread.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kvast/core/host_device.h"

namespace kvast {

/// A well-mixed number from a seed and a place.
KVAST_HD constexpr std::uint32_t mix_bits(std::uint64_t seed,
                                          std::initializer_list<std::uint32_t> place) {
  std::uint64_t bits = seed;
  const auto stir = [&bits](std::uint32_t part) {
    bits = (bits ^ part) + 0x9E3779B97F4A7C15U;  // splitmix64 (Steele, Lea, Flood 2014)
    bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
    bits ^= bits >> 31U;
  };
  stir(0U);  // the seed is mixed as well
  for (const std::uint32_t part : place) stir(part);
  return static_cast<std::uint32_t>(bits >> 32U);
}

}  // namespace kvast
