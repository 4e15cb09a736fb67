// SPDX-License-Identifier: Apache-2.0
// What the host knows of blocks on the device without asking: an upper bound for each size, from
// the tokens that were sent and from what the device reported some steps ago.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kvast/core/block.h"

namespace kvast::gpu {

/// Blocks of one kind of layers, in all heads of all sequences.
struct Bound {
  std::int64_t dense = 0;
  std::int64_t coded = 0;
};

/// How the layers of one kind keep tokens.
struct Habit {
  bool coded = false;
  bool evicts = false;
  int residual = 0;
  int first_coded = 0;
};

/// One per kind of layer; kinds differ by Habit. Everything is per head.
class Ledger {
 public:
  Ledger(Habit habit, int sequences)
      : habit_(habit), sequences_(static_cast<std::size_t>(sequences)) {}

  /// The most blocks that a head of each sequence, summed up, can hold at any moment of a pass that
  /// brings `counts` and, where `seals`, seals at its end.
  template <class Counts>
  Bound during(const Counts& counts, bool seals) const {
    Bound bound;
    for (std::size_t at = 0; at < sequences_.size(); ++at) {
      const Sequence next = after(sequences_[at], counts(at), false);
      bound.dense += blocks_of(next.waiting);
      bound.coded += after(sequences_[at], counts(at), seals).coded;
    }
    return bound;
  }
  template <class Counts>
  void advance(const Counts& counts, bool seals) {
    for (std::size_t at = 0; at < sequences_.size(); ++at)
      sequences_[at] = after(sequences_[at], counts(at), seals);
  }
  /// Sequences have come to lengths(at), the host does not know how: what came may wait, or be
  /// sealed.
  template <class Lengths>
  void jump(const Lengths& lengths) {
    for (std::size_t at = 0; at < sequences_.size(); ++at) {
      Sequence& sequence = sequences_[at];
      const int more = lengths(at) - static_cast<int>(sequence.length);
      const std::int64_t coded = after(sequence, more, true).coded;
      sequence = after(sequence, more, false);
      sequence.coded = coded;
    }
  }
  void forget(int sequence) { sequences_[static_cast<std::size_t>(sequence)] = {}; }

 private:
  struct Sequence {
    std::int64_t waiting = 0;  ///< dense tokens
    std::int64_t coded = 0;    ///< blocks
    std::int64_t length = 0;   ///< tokens that ever came
  };

  Sequence after(Sequence sequence, int count, bool seals) const {
    sequence.waiting += count;
    sequence.length += count;
    if (!habit_.coded || !seals || count == 0) return sequence;  // see ChooseSealed
    const std::int64_t kept = std::min<std::int64_t>(habit_.first_coded, sequence.length);
    const std::int64_t open = sequence.waiting - kept - habit_.residual;
    if (!habit_.evicts) {
      if (open >= kBlockTokens) {
        // after a jump more may be said to wait than does
        sequence.coded =
            std::min(sequence.coded + open / kBlockTokens, sequence.length / kBlockTokens);
        sequence.waiting -= open / kBlockTokens * kBlockTokens;
      }
    } else {  // how many left is not known, but what stays dense is less than one block too many
      sequence.coded = sequence.length / kBlockTokens;
      sequence.waiting =
          std::min<std::int64_t>(sequence.waiting, kept + habit_.residual + kBlockTokens - 1);
    }
    return sequence;
  }

  Habit habit_;
  std::vector<Sequence> sequences_;
};

}  // namespace kvast::gpu
