// SPDX-License-Identifier: Apache-2.0
// What `begin` is told about a forward pass.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kvast/core/executor.h"
#include "kvast/core/policy.h"
#include "kvast/core/rope.h"

namespace kvast {

/// One forward pass of `tokens` new tokens. With neither flag it is a decode step (or several
/// tokens at once, as in speculative decoding).
struct PassOptions {
  int tokens = 1;  ///< in [1, 2^20]
  bool last_of_prompt =
      false;  ///< a prompt ends with this pass: the first one, or a later turn of a chat
  bool more_of_prompt = false;       ///< a chunk of a prompt that goes on: nothing is sealed yet
  std::span<const int> positions{};  ///< [tokens] ascending, after all before; empty: they follow
                                     ///< on. Sinks, windows and newest tokens of policies are
                                     ///< counted in positions: gaps make them fewer
  std::span<const TokenKind>
      kinds{};  ///< [tokens] for policies that need token kinds; empty: other
};

/// How positions reach the model.
enum class Positions : std::uint8_t {
  original,   ///< keys and queries arrive rotated, or the model does not rotate
  compacted,  ///< both arrive unrotated; the cache rotates by the place in the cache, as
              ///< StreamingLLM does
  unrotated   ///< both arrive unrotated; the cache rotates to the position in the sequence: for
              ///< storages whose key basis is of keys before rotation
};

struct CacheOptions {
  Positions positions = Positions::original;
  Rope rope{};  ///< for Positions::compacted and unrotated, and for policies that need
                ///< query_moments: how the model rotates (empty there: it does not)
  std::optional<Reduce> reduce{};  ///< overrides the policy's rule for grouped query heads
  Executor executor{};             ///< runs parallel loops; serial by default
};

/// Attention weights from the engine's own kernel: weight of query head q of new token t on a slot
/// is `data[t * token_stride + q * head_stride + slot]`, slots as in KVCache::slots.
struct Weights {
  const float* data = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t elements = -1;  ///< readable from `data` on; negative: not known
};

/// Counted since construction, in tokens over all layers and heads.
struct Stats {
  std::int64_t appended = 0;
  std::int64_t evicted = 0;
  std::int64_t sealed = 0;  ///< encoded into coded blocks, each once
  std::int64_t repacked =
      0;  ///< keys decoded and encoded again when sparse coded blocks were merged
};

}  // namespace kvast
