// SPDX-License-Identifier: Apache-2.0
// Policies that look at positions and keys with every storage, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

namespace {

struct FullCase {
  static Full policy() { return {}; }
  static Promise promise() { return {.name = "Full", .recent = 1 << 20, .ends_alike = true}; }
};
struct StreamingCase {
  static StreamingLLM policy() { return {.sinks = 4, .recent = 60}; }
  static Promise promise() {
    return {.name = "StreamingLLM", .budget = 64, .sinks = 4, .recent = 60, .ends_alike = true};
  }
};
struct L2NormCase {
  static L2Norm policy() {
    return {.tokens_kept = 70, .recent = 8, .skip = LayerSet::first(1), .when = When::full(6)};
  }
  static Promise promise() {
    return {.name = "L2Norm", .budget = 70, .slack_layers = 1, .recent = 8};
  }
};

}  // namespace

std::vector<Cell> recency_cells() { return cells_of<FullCase, StreamingCase, L2NormCase>(); }

}  // namespace kvast::test
