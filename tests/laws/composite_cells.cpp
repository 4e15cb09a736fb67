// SPDX-License-Identifier: Apache-2.0
// Policies made of others, and those that give weights new values, with every storage, compiled
// once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

namespace {

struct KeyformerCase {
  static Keyformer policy() { return {.tokens_kept = 64, .recent = 20, .steps = 50}; }
  static Promise promise() { return {.name = "Keyformer", .budget = 64, .recent = 20}; }
};
struct PerLayerCase {
  static PerLayer<Full, TOVA> policy() { return {{}, {.tokens_kept = 64}, LayerSet::first(1)}; }
  static Promise promise() {
    return {.name = "PerLayerFullTOVA", .budget = 64, .slack_layers = 1, .shared_by_layer = true};
  }
};
struct PerHeadCase {
  static PerHead<StreamingLLM, Keyformer> policy() {
    return {{.sinks = 4, .recent = 60}, {.tokens_kept = 64, .recent = 20}, HeadSet{}.add(0, 1)};
  }
  static Promise promise() {
    return {.name = "PerHeadStreamingLLMKeyformer", .budget = 64, .recent = 20};
  }
};
struct PhasesCase {
  static PrefillThenDecode<SnapKV, PerHead<H2O, Scissorhands>> policy() {
    return {{.tokens_kept = 50, .window = 8},
            {{.heavy = 40, .recent = 24},
             {.tokens_kept = 64, .recent = 10, .window = 33, .when = When::full(20)},
             HeadSet{}.add(1, 0)}};
  }
  static Promise promise() {
    return {.name = "SnapKVThenPerHead", .budget = 64, .recent = 8, .prompt_budget = 50};
  }
};

struct PerLayerBudgetCase {
  static PerLayerBudget<H2O> policy() {
    return {{.heavy = 20, .recent = 20}, LayerBudgets::slope(2, 60, 1.2)};
  }
  static Promise promise() {
    return {.name = "PerLayerBudgetH2O", .budget = 60, .recent = 20, .layer_budgets = {72, 48}};
  }
};

}  // namespace

std::vector<Cell> composite_cells() {
  return cells_of<KeyformerCase, PerLayerCase, PerHeadCase, PhasesCase, PerLayerBudgetCase>();
}

}  // namespace kvast::test
