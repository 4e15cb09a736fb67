// SPDX-License-Identifier: Apache-2.0
// Policies with unusual budgets, and wrappers, with every storage, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

namespace {

struct ScissorhandsCase {
  static Scissorhands policy() {
    return {.tokens_kept = 64, .recent = 10, .window = 33, .when = When::full(20)};
  }
  static Promise promise() { return {.name = "Scissorhands", .budget = 64, .recent = 10}; }
};
struct CappedCormCase {
  static Corm policy() { return {.window = 40, .recent = 20, .cap = 50}; }
  static Promise promise() { return {.name = "CormWithCap", .budget = 50, .recent = 20}; }
};
struct RoCoCase {
  static RoCo policy() { return {.tokens_kept = 64, .sinks = 4, .recent = 10}; }
  static Promise promise() { return {.name = "RoCo", .budget = 64, .sinks = 4, .recent = 10}; }
};
struct AdaCase {
  static AdaHeads<SnapKV> policy() { return {{.tokens_kept = 64, .window = 8}, 0.2F}; }
  static Promise promise() {
    return {.name = "AdaHeadsSnapKV",
            .budget = 64,
            .shares_budget = true,
            .only_at_prompts = true,
            .recent = 8,
            .ends_alike = true};
  }
};
struct PyramidCase {
  static Pyramid<AdaHeads<H2O>> policy() { return {{{.heavy = 30, .recent = 20}, 0.3F}, 2.0}; }
  static Promise promise() {
    return {.name = "PyramidAdaHeadsH2O", .budget = 75, .shares_budget = true, .recent = 20};
  }
};
struct EveryCase {
  static Every<Protect<TOVA>, 7> policy() { return {{{.tokens_kept = 60}, 3, 2}}; }
  static Promise promise() {
    return {
        .name = "EveryProtectTOVA", .budget = 60, .sinks = 3, .recent = 2, .shared_by_layer = true};
  }
};

struct CascadingCase {
  static Cascading policy() { return {.sinks = 4, .rings = 3, .ring = 20, .forget = 0.1F}; }
  static Promise promise() { return {.name = "Cascading", .budget = 64, .sinks = 4, .recent = 20}; }
};
struct DBudgetCase {
  static DBudgetKV policy() { return {.threshold = 0.3F, .sinks = 4, .recent = 10}; }
  static Promise promise() { return {.name = "DBudgetKV", .sinks = 4, .recent = 10}; }
};
struct FastGenCase {
  static FastGen policy() { return {.threshold = 0.7F, .frequent = 0.2F, .local = 0.2F}; }
  static Promise promise() {
    return {.name = "FastGen", .whole_prompts = true, .keeps_specials = true};
  }
};

}  // namespace

std::vector<Cell> budget_cells() {
  return cells_of<ScissorhandsCase, CappedCormCase, RoCoCase, AdaCase, PyramidCase, EveryCase,
                  CascadingCase, DBudgetCase, FastGenCase>();
}

}  // namespace kvast::test
