// SPDX-License-Identifier: Apache-2.0
// What a cache on the device is told when it is made, and when a pass begins.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "kvast/core/pass_options.h"
#include "kvast/core/policy.h"
#include "kvast/core/rope.h"

namespace kvast::gpu {

struct CacheOptions {
  int sequences = 1;  ///< in [1, 4096]
  Positions positions = Positions::original;
  Rope rope{};                     ///< for Positions::compacted
  std::optional<Reduce> reduce{};  ///< overrides the policy's rule for grouped query heads
};

struct PassOptions {
  int tokens = 1;                    ///< new tokens of every sequence, in [0, 2^20]
  std::span<const int> counts{};     ///< [sequences] new tokens of each, in place of `tokens`
  bool last_of_prompt = false;       ///< a prompt ends with this pass
  bool more_of_prompt = false;       ///< a chunk of a prompt that goes on: nothing is sealed yet
  const TokenKind* kinds = nullptr;  ///< [rows] device memory, for policies that need token kinds;
                                     ///< null: other

  int tokens_of(int sequence) const {
    const auto at = static_cast<std::size_t>(sequence);
    return at < counts.size() ? counts[at] : tokens;
  }
};

}  // namespace kvast::gpu
