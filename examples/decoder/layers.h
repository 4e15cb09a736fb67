// SPDX-License-Identifier: Apache-2.0
// What a Llama layer does besides products and attention: norm, rotation, gated activation, and the
// way into and out of panels. Every function works on one panel, so a pass runs them panel by panel
// in parallel.
#pragma once

#include <vector>

#include "examples/decoder/panels.h"
#include "kvast/core/rope.h"

namespace kvast::decoder {

/// output = input / rms(input) * gain, per token. Ref: RMSNorm, arXiv:1910.07467.
///   gain  [features]
void normalize(const Panels& input, int panel, const float* gain, float epsilon, Panels& output);

/// gate = silu(gate) * up: features [0, n) and [n, 2n) of `gates`, into [0, n) of `output`.
void activate(const Panels& gates, int panel, Panels& output);

/// The cosines and sines of a pass, computed once and used by all layers.
class Rotation {
 public:
  /// Angles of `tokens` neighbouring positions, computed in double. Allocates only when it grows.
  void prepare(const Rope& rope, int first_position, int tokens);

  /// Rotates one panel's `heads` heads of `head_dim` features from `first_feature` on; the features
  /// of a pair are neighbours, as GGUF files of this architecture have them.
  void apply(Panels& panels, int panel, int first_feature, int heads, int head_dim) const;

 private:
  Panels cosines_, sines_;  // features: pairs
};

/// Copies features [first, first + count) of a panel to token-major rows [tokens, count].
void unpack(const Panels& panels, int panel, int first, int count, float* rows);

/// Copies token-major rows [tokens, features] into a panel; lanes without a token become zero.
void pack(const float* rows, Panels& panels, int panel);

}  // namespace kvast::decoder
