// SPDX-License-Identifier: Apache-2.0
// Policies that read keys and values, with every storage that has them, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

namespace {

struct RandomCase {
  static kvast::Random policy() { return {.tokens_kept = 64, .recent = 5}; }
  static Promise promise() {
    return {.name = "Random", .budget = 64, .recent = 5, .ends_alike = true};
  }
};
struct KeyDiffCase {
  static KeyDiff policy() { return {.tokens_kept = 64, .recent = 5}; }
  static Promise promise() {
    return {.name = "KeyDiff", .budget = 64, .only_at_prompts = true, .recent = 5};
  }
};
struct LagCase {
  static LagKV policy() { return {.tokens_kept = 64, .sinks = 4, .lag = 12}; }
  static Promise promise() {
    return {.name = "LagKV", .budget = 64, .only_at_prompts = true, .sinks = 4};
  }
};
struct ExpectedCase {
  static ExpectedAttention policy() { return {.tokens_kept = 64, .sinks = 4, .future = 20}; }
  static Promise promise() {
    return {.name = "ExpectedAttention",
            .budget = 64,
            .only_at_prompts = true,
            .whole_prompts = true,
            .sinks = 4};
  }
};

}  // namespace

std::vector<Cell> vector_cells() {
  std::vector<Cell> cells = cells_of<KeyDiffCase, LagCase, ExpectedCase>();
  std::erase_if(cells, [](const Cell& cell) { return cell.storage == LawStorage::external; });
  for (const Cell& cell : cells_of<RandomCase>()) cells.push_back(cell);
  return cells;
}

}  // namespace kvast::test
