// SPDX-License-Identifier: Apache-2.0
// Two caches that must be the same bits: on one thread and two, forked and never forked, after a
// dropped pass and without it, cleared and new.
#include <gtest/gtest.h>

#include "kvast/host/openmp.h"
#include "tests/laws/any_cache.h"

namespace kvast::test {
namespace {

class Twins : public testing::TestWithParam<Cell> {
 protected:
  static void expect_same(AnyCache& one, AnyCache& two) {
    ASSERT_EQ(one.kept(), two.kept());
    ASSERT_EQ(one.length(), two.length());
    ASSERT_EQ(one.bytes(), two.bytes());
    ASSERT_EQ(one.exported(), two.exported());
  }
  static void run_both(AnyCache& one, AnyCache& two, int tokens, Phase phase) {
    ASSERT_EQ(one.run(tokens, phase), two.run(tokens, phase)) << tokens << " tokens";
  }
};

TEST_P(Twins, OneThreadAndTwoGiveTheSameBits) {
  BlockPool pool;
  BlockPool second_pool;
  auto one = GetParam().make(pool, serial());
  auto two = GetParam().make(second_pool, openmp(2));
  run_both(*one, *two, 300, Phase::prompt);
  for (int step = 0; step < 40; ++step) run_both(*one, *two, 1, Phase::decode);
  run_both(*one, *two, 5, Phase::decode);
  const Phase more = GetParam().policy.whole_prompts ? Phase::prompt : Phase::chunk;
  run_both(*one, *two, 70, more);
  run_both(*one, *two, 260, more);  // more blocks than observers take at once
  run_both(*one, *two, 33, Phase::prompt);
  for (int step = 0; step < 20; ++step) run_both(*one, *two, 1, Phase::decode);
  expect_same(*one, *two);
  EXPECT_EQ(pool.bytes_in_use(), second_pool.bytes_in_use());
}

TEST_P(Twins, AForkAndItsOriginGoOnAsIfAlone) {
  BlockPool pool;
  BlockPool alone_pool;
  auto origin = GetParam().make(pool, serial());
  auto first_alone = GetParam().make(alone_pool, serial());
  auto second_alone = GetParam().make(alone_pool, serial());
  for (AnyCache* cache : {origin.get(), first_alone.get(), second_alone.get()}) {
    (void)cache->run(150, Phase::prompt);
    for (int step = 0; step < 7; ++step) (void)cache->run(1, Phase::decode);
  }
  const std::size_t before = pool.bytes_in_use();
  auto copy = origin->fork();
  EXPECT_EQ(copy->bytes(), origin->bytes());
  if (GetParam().storage != LawStorage::external) {
    // at 2 bits and head_dim 16 the side record is more than half
    EXPECT_LT(pool.bytes_in_use(), before + before * 5 / 8) << "payload is shared, not copied";
  }
  // the copy goes a way of its own, in between the origin's steps
  for (int step = 0; step < 40; ++step) {
    run_both(*origin, *first_alone, 1, Phase::decode);
    run_both(*copy, *second_alone, step % 9 == 0 ? 8 : 1, Phase::decode);
  }
  run_both(*copy, *second_alone, 60, Phase::prompt);
  expect_same(*origin, *first_alone);
  expect_same(*copy, *second_alone);
  auto third = copy->fork();
  origin.reset();
  copy.reset();
  for (int step = 0; step < 20; ++step) run_both(*third, *second_alone, 1, Phase::decode);
  expect_same(*third, *second_alone);
  EXPECT_EQ(pool.bytes_in_use(), third->bytes()) << "nobody else holds anything";
  third.reset();
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

// The three groups of a policy and storage drop after other numbers of layers each time.
TEST_P(Twins, ADroppedPassLeavesNoTrace) {
  int layers = GetParam().group % 3;
  for (const bool attends : {false, true}) {
    BlockPool pool;
    BlockPool plain_pool;
    auto dropped = GetParam().make(pool, serial());
    auto plain = GetParam().make(plain_pool, serial());
    for (const int drop : {1, 31, 100}) {
      dropped->drop(drop, layers, attends, Phase::prompt);
      ASSERT_EQ(dropped->bytes(), plain->bytes());
      run_both(*dropped, *plain, 45, Phase::prompt);
      dropped->drop(drop, layers, attends,
                    GetParam().policy.whole_prompts ? Phase::decode : Phase::chunk);
      ASSERT_EQ(dropped->bytes(), plain->bytes());
      ASSERT_EQ(pool.bytes_in_use(), plain_pool.bytes_in_use());
      for (int step = 0; step < 6; ++step) {
        run_both(*dropped, *plain, 1, Phase::decode);
        dropped->drop(drop, layers, attends, Phase::decode);
      }
      expect_same(*dropped, *plain);
      if (HasFatalFailure()) return;
      layers = (layers + 1) % 3;
    }
  }
}

TEST_P(Twins, AClearedCacheIsANewOne) {
  BlockPool pool;
  auto used = GetParam().make(pool, serial());
  const bool chunks = !GetParam().policy.whole_prompts;
  if (chunks) (void)used->run(77, Phase::chunk);
  (void)used->run(200, Phase::prompt);
  for (int step = 0; step < 30; ++step) (void)used->run(1, Phase::decode);
  if (chunks) (void)used->run(20, Phase::chunk);  // leaves a ring of queries behind
  used->clear();
  EXPECT_EQ(pool.bytes_in_use(), 0U);
  EXPECT_EQ(used->length(), 0);
  BlockPool new_pool;
  auto fresh = GetParam().make(new_pool, serial());
  if (chunks) run_both(*used, *fresh, 5, Phase::chunk);
  run_both(*used, *fresh, 100, Phase::prompt);
  for (int step = 0; step < 20; ++step) run_both(*used, *fresh, 1, Phase::decode);
  expect_same(*used, *fresh);
}

INSTANTIATE_TEST_SUITE_P(Laws, Twins, testing::ValuesIn(all_cells()),
                         [](const auto& cell) { return cell.param.identifier(); });

}  // namespace
}  // namespace kvast::test
