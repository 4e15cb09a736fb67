// SPDX-License-Identifier: Apache-2.0
// What twins are fed with: numbers of a model, or random ones.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/support/random.h"

namespace kvast::test {

/// A weight that depends on who looks at what alone: slots differ between backends. Few different
/// ones, so that ranks tie.
inline float weight_of(int sequence, int layer, int query_head, int step, int position) {
  std::uint32_t bits = static_cast<std::uint32_t>(position) * 2654435761U ^
                       static_cast<std::uint32_t>(step) * 2246822519U ^
                       static_cast<std::uint32_t>(sequence * 977 + layer * 131 + query_head * 17);
  bits ^= bits >> 15U;
  bits *= 2246822519U;
  bits ^= bits >> 13U;
  return static_cast<float>(bits % 16U) / 64.0F;
}

/// What a model would bring: keys, values and queries of a sequence's tokens, and what they attend
/// to.
class TwinNumbers {
 public:
  enum class Kind : std::uint8_t { keys, values, queries };

  virtual ~TwinNumbers() = default;
  /// [count, width] of the tokens from position `first` on.
  virtual std::vector<float> rows(Kind kind, int sequence, int layer, int first, int count,
                                  int width) = 0;
  virtual float weight(int sequence, int layer, int query_head, int step, int position) const {
    return weight_of(sequence, layer, query_head, step, position);
  }
};

class RandomNumbers : public TwinNumbers {
 public:
  std::vector<float> rows(Kind kind, int, int, int, int count, int width) override {
    return random_.normals(static_cast<std::size_t>(count * width),
                           kind == Kind::queries ? 2.0 : 1.0);
  }

 private:
  Random random_{7};
};

}  // namespace kvast::test
