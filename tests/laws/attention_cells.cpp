// SPDX-License-Identifier: Apache-2.0
// Policies that look at attention with every storage, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

namespace {

struct H2OCase {
  static H2O policy() { return {.heavy = 40, .recent = 24}; }
  static Promise promise() { return {.name = "H2O", .budget = 64, .recent = 24}; }
};
struct CormCase {
  static Corm policy() { return {.window = 40, .recent = 20}; }
  static Promise promise() { return {.name = "Corm", .recent = 20}; }
};
struct TovaCase {
  static TOVA policy() { return {.tokens_kept = 64}; }
  static Promise promise() { return {.name = "TOVA", .budget = 64, .shared_by_layer = true}; }
};
struct SnapCase {
  static SnapKV policy() { return {.tokens_kept = 64, .window = 8}; }
  static Promise promise() {
    return {
        .name = "SnapKV", .budget = 64, .only_at_prompts = true, .recent = 8, .ends_alike = true};
  }
};

}  // namespace

std::vector<Cell> attention_cells() { return cells_of<H2OCase, CormCase, TovaCase, SnapCase>(); }

}  // namespace kvast::test
