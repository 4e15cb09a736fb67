// SPDX-License-Identifier: Apache-2.0
// Where tokens lie changes nothing: the same tokens in other slots are ranked, kept and sealed
// alike, and attended alike up to rounding.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/laws/any_cache.h"

namespace kvast::test {
namespace {

class Permutation : public testing::TestWithParam<Cell> {
 protected:
  static void expect_same(AnyCache& one, AnyCache& other) {
    ASSERT_EQ(one.kept(), other.kept());
    ASSERT_EQ(one.bytes(), other.bytes());
    ASSERT_EQ(one.exported(), other.exported());
  }
};

TEST_P(Permutation, ChangesNothing) {
  BlockPool pool;
  auto one = GetParam().make(pool, serial(), Scramble::one_way);
  auto other = GetParam().make(pool, serial(), Scramble::other_way);
  const auto run_both = [&](int tokens, Phase phase) {
    one->run_on_ties(tokens, phase);
    other->run_on_ties(tokens, phase);
  };
  run_both(kFirstScrambled, Phase::prompt);
  run_both(kSecondScrambled, Phase::prompt);
  expect_same(*one, *other);
  ASSERT_NE(one->slots(1, 1), other->slots(1, 1)) << "the slots must differ for this to test";
  for (int turn = 0; turn < 6; ++turn) {
    for (int step = 0; step < 9; ++step) {
      run_both(1, Phase::decode);
      ASSERT_EQ(one->kept(), other->kept()) << "turn " << turn << ", step " << step;
    }
    run_both(3 + 5 * turn, Phase::prompt);
    expect_same(*one, *other);
    if (HasFatalFailure()) return;
  }
  const std::vector<float> here = one->run(1, Phase::decode);
  const std::vector<float> there = other->run(1, Phase::decode);
  for (std::size_t at = 0; at < here.size(); ++at) ASSERT_NEAR(here[at], there[at], 2e-6);
}

/// Full never drops anything, so its tokens lie in order. Storages that seal at once, or leave the
/// first tokens out, seal junk with what stays: then codes differ by right.
std::vector<Cell> cells_that_evict() {
  std::vector<Cell> cells = all_cells();
  std::erase_if(cells, [](const Cell& cell) {
    const auto is_in = [&](const auto& some) {
      return std::find(std::begin(some), std::end(some), cell.storage) != std::end(some);
    };
    return cell.policy.name == "Full" || !(is_in(kLawStorages) || is_in(kLowRankLawStorages));
  });
  return cells;
}

INSTANTIATE_TEST_SUITE_P(Laws, Permutation, testing::ValuesIn(cells_that_evict()),
                         [](const auto& cell) { return cell.param.identifier(); });

}  // namespace
}  // namespace kvast::test
