// SPDX-License-Identifier: Apache-2.0
// Policies on the device: fed the same keys and weights, what stays is what stays on the CPU, token
// for token and code for code, over long histories of ragged batches.
#include <gtest/gtest.h>

#include "tests/simt/histories.h"

namespace kvast {
namespace {

using test::check_history;
using test::kShapes;

TEST(GpuPolicies, H2O) { check_history(H2O{.heavy = 40, .recent = 20}, 200); }
TEST(GpuPolicies, SnapKV) { check_history(SnapKV{.tokens_kept = 50, .window = 10}, 100); }
TEST(GpuPolicies, SharedBudgets) {
  check_history(AdaHeads<SnapKV>{{.tokens_kept = 50, .window = 10}}, 60);
  check_history(AdaHeads<H2O>{{.heavy = 30, .recent = 10}}, 60);
  AdaHeads<H2O> floors{{.heavy = 30, .recent = 10}};
  floors.kind = Allocation::Kind::floor;
  check_history(floors, 60);
}
/// A threshold policy of a user's own, which needs no budget to be what it is.
struct Mattered {
  static constexpr Needs needs{.attention = true};
  struct State {
    float best = 0.0F;
  };
  KVAST_HD void observe(State& state, Attention seen) const {
    if (seen.weight > state.best) state.best = seen.weight;
  }
  KVAST_HD float rank(Token token, State state) const {
    return token.age < 8 || state.best >= 0.2F ? kPin : kDrop;
  }
};
TEST(GpuPolicies, ThresholdsWithoutABudget) { check_history(Mattered{}, 60); }
TEST(GpuPolicies, LayerSchedules) {
  check_history(Pyramid<SnapKV>{{.tokens_kept = 50, .window = 10}}, 20);
  check_history(Pyramid<H2O>{{.heavy = 40, .recent = 10}}, 60);  // budgets change with the length
  Pyramid<H2O> kvpress{{.heavy = 40, .recent = 10}};
  kvpress.kvpress = 0.4;
  check_history(kvpress, 60);
  check_history(PerLayerBudget<H2O>{{.heavy = 20, .recent = 10}, LayerBudgets::slope(2, 60, 1.2)},
                60);
}
TEST(GpuPolicies, L2Norm) {
  check_history(L2Norm{.tokens_kept = 50, .recent = 5, .skip = {}}, 100);
}

/// Heads of the size that models have, where the environment asks for it: 8 of 128 features, which
/// come down from 8k tokens.
template <class Policy, class S>
void check_size(Policy policy, S storage) {
  const bool whole = test::steps_of(0, 1) == 1;
  const Shape shape = whole ? Shape{.query_heads = 32, .heads = 8, .head_dim = 128}
                            : Shape{.query_heads = 4, .heads = 2, .head_dim = 32};
  const int chunk = whole ? 32 : 16;
  const int tokens = whole ? 8192 : 512;
  test::begin_schedule(test::kSchedules[0]);
  test::Twins<Policy, S> twins(std::vector<Shape>{shape}, policy, storage);
  for (int at = 0; at < tokens; at += chunk) {
    ASSERT_NO_FATAL_FAILURE(
        twins.pass({chunk, chunk / 2}, at + chunk == tokens, at + chunk != tokens));
  }
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  for (int step = 0; step < 8; ++step) ASSERT_NO_FATAL_FAILURE(twins.pass({1, 1}, false));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
}
TEST(GpuPolicies, FullSize) {
  const int kept = test::steps_of(256, 4096);
  check_size(H2O{.heavy = kept / 2, .recent = kept / 2, .when = When::prompt()}, Dense<half>{});
  check_size(L2Norm{.tokens_kept = kept, .recent = 5, .skip = {}, .when = When::prompt()},
             Kivi<4>{});
  check_size(TOVA{.tokens_kept = kept, .recent = 4}, Dense<half>{});
  check_size(AdaHeads<H2O>{{.heavy = kept / 2, .recent = kept / 2}}, Dense<half>{});
  check_size(Corm{.window = kept / 4, .recent = 8}, Dense<half>{});
}

TEST(GpuPolicies, Tova) { check_history(TOVA{.tokens_kept = 50, .recent = 4}, 200); }
TEST(GpuPolicies, Corm) {
  check_history(Corm{.window = 20, .recent = 8}, 150);
  check_history(Corm{.window = 20, .recent = 8, .cap = 15}, 150);
}
TEST(GpuPolicies, Scissorhands) {
  check_history(Scissorhands{.tokens_kept = 60, .recent = 5, .window = 30, .when = When::full(20)},
                150);
}
TEST(GpuPolicies, Wrapped) {
  check_history(Every<H2O, 8>{{.heavy = 40, .recent = 20}}, 60);
  check_history(Every<StreamingLLM, 5>{{.sinks = 4, .recent = 40}}, 60);
  check_history(Protect<H2O>{{.heavy = 40, .recent = 20}, 4, 2}, 60);
}
/// What stays is the same codes, however often blocks were merged.
TEST(GpuPolicies, OnCodes) {
  check_history(H2O{.heavy = 40, .recent = 20}, 80, Kivi<4>{.residual = 32});
  check_history(TOVA{.tokens_kept = 50, .recent = 4}, 40, Kivi<2>{.residual = 0});
  check_history(Scissorhands{.tokens_kept = 60, .recent = 5, .window = 30, .when = When::full(20)},
                40, Int8{});
}
TEST(GpuPolicies, WithoutAttention) {
  check_history(Random{.tokens_kept = 50, .recent = 5}, 100);
  check_history(StreamingLLM{.sinks = 4, .recent = 40}, 100);
  check_history(StreamingLLM{.sinks = 4, .recent = 40, .when = When::full(7)}, 60);
}
/// A prompt that ends is one sequence's affair.
TEST(GpuPolicies, PromptsEndOneByOne) {
  test::begin_schedule(test::kSchedules[0]);
  test::Twins<StreamingLLM, Dense<half>> twins(
      kShapes, {.sinks = 4, .recent = 16, .when = When::prompt()}, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({40, 0}, true));
  for (int step = 0; step < 20; ++step) ASSERT_NO_FATAL_FAILURE(twins.pass({1, 0}, false));
  ASSERT_NO_FATAL_FAILURE(twins.pass({0, 40}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
}

}  // namespace
}  // namespace kvast
