// SPDX-License-Identifier: Apache-2.0
// Policies with a value per head (tier 2) on the device: summaries are merged in the CPU's order.
#include "tests/simt/histories.h"
#include "tests/simt/near_mean.h"
#include "tests/support/cutoff.h"

namespace kvast {
namespace {

using test::check_history;
using test::Cutoff;
using test::NearMean;

/// Another order of merges, or other runs of them, are other ranks.
struct Ordered {
  static constexpr Needs needs{};
  struct State {};
  struct Head {
    int first = -1;
    int last = -1;
    int gaps = 0;
  };
  int tokens_kept = 40;

  KVAST_HD Head summarize(Token token, State) const { return {token.position, token.position, 0}; }
  KVAST_HD Head merge(Head left, Head right) const {
    const int gap = right.first - left.last == 1 ? 0 : 1;
    return {left.first, right.last, (left.gaps * 31 + right.gaps + gap) % 100003};
  }
  KVAST_HD float rank(Token token, State, Head head) const {
    if (token.position == head.first || token.position == head.last) return kPin;
    return static_cast<float>((token.position * 37 + head.gaps) % 101);
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
};
static_assert(check_policy<Ordered>());

TEST(GpuHeads, MeanUnderABudget) { check_history(NearMean{}, 100); }
TEST(GpuHeads, MeanOnCodes) { check_history(NearMean{}, 60, Kivi<4>{.residual = 32}); }
TEST(GpuHeads, CutoffWithoutABudget) { check_history(Cutoff{}, 100); }
TEST(GpuHeads, MergedInOrder) { check_history(Ordered{}, 100); }
TEST(GpuHeads, Wrapped) {
  check_history(Protect<NearMean>{{}, 4, 8}, 40);
  check_history(AdaHeads<NearMean>{{}}, 40);
  HeadSet heads;
  heads.add(0, 0).add(1, 1);
  check_history(PerHead<NearMean, Cutoff>{{}, {}, heads}, 40);
}
/// More tokens than runs, and heads that are longer than the positions looked at together.
TEST(GpuHeads, LongHeads) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<Shape> shape{{.query_heads = 1, .heads = 1, .head_dim = 8}};
  test::Twins<NearMean, Dense<half>> twins(shape, {.tokens_kept = 700}, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({5000, 129}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  ASSERT_NO_FATAL_FAILURE(twins.pass({300, 600}, false));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  test::Twins<Ordered, Dense<half>> runs(shape, {.tokens_kept = 700}, {});
  ASSERT_NO_FATAL_FAILURE(runs.pass({5000, 129}, true));
  ASSERT_NO_FATAL_FAILURE(runs.compare());
  ASSERT_NO_FATAL_FAILURE(runs.pass({300, 600}, false));
  ASSERT_NO_FATAL_FAILURE(runs.compare());
}

}  // namespace
}  // namespace kvast
