// SPDX-License-Identifier: Apache-2.0
// Which channels are kept: by product of energies, alone or in pairs, a multiple of 8 of them.
#include "kvast/core/channels.h"

#include <gtest/gtest.h>

#include "tests/support/random.h"

namespace kvast {
namespace {

TEST(ChannelPlan, CountsAreMultiplesOfEight) {
  const auto kept = [](float pruned, int dim) { return ChannelPlan{.pruned = pruned}.kept(dim); };
  EXPECT_EQ(kept(0.0F, 64), 64);
  EXPECT_EQ(kept(0.4F, 64), 40) << "of 39";
  EXPECT_EQ(kept(0.5F, 64), 32);
  EXPECT_EQ(kept(0.6F, 128), 56) << "of 52";
  EXPECT_EQ(kept(0.4F, 128), 80) << "of 77";
  EXPECT_EQ(kept(0.5F, 16), 8);
  EXPECT_EQ(kept(0.4F, 8), 8);
  EXPECT_EQ(kept(0.99F, 512), 8);
  EXPECT_FALSE(ChannelPlan{}.chooses());
}

TEST(ChooseChannels, TakesTheLargestProducts) {
  //                                  0  1  2  3  4  5  6  7
  const std::vector<double> queries = {1, 9, 2, 2, 0, 5, 3, 1};
  const std::vector<double> keys = {1, 1, 8, 2, 99, 1, 3, 1};  // 1 9 16 4 0 5 9 1
  using Channels = std::vector<std::uint16_t>;
  EXPECT_EQ(choose_channels(queries, keys, 3, ChannelPairs::none), (Channels{1, 2, 6}));
  EXPECT_EQ(choose_channels(queries, keys, 2, ChannelPairs::none), (Channels{1, 2}))
      << "of equals the lower";
  // halves: 0 with 4 is 1, 1 with 5 is 14, 2 with 6 is 25, 3 with 7 is 5
  EXPECT_EQ(choose_channels(queries, keys, 4, ChannelPairs::halves), (Channels{1, 2, 5, 6}));
  // neighbours: 10, 20, 5, 10
  EXPECT_EQ(choose_channels(queries, keys, 4, ChannelPairs::interleaved), (Channels{0, 1, 2, 3}));
}

TEST(ChooseChannels, PairsStayTogetherAndNothingIsTakenTwice) {
  test::Random random(3);
  for (int turn = 0; turn < 50; ++turn) {
    const int dim = 8 * random.between(1, 16);
    const int kept = 8 * random.between(1, dim / 8);
    std::vector<double> queries, keys;
    for (int at = 0; at < dim; ++at) {
      queries.push_back(random.chance(0.3) ? 0.0 : std::abs(random.normal()));
      keys.push_back(std::abs(random.normal()));
    }
    for (const ChannelPairs pairs :
         {ChannelPairs::none, ChannelPairs::halves, ChannelPairs::interleaved}) {
      const auto chosen = choose_channels(queries, keys, kept, pairs);
      ASSERT_EQ(static_cast<int>(chosen.size()), kept);
      std::vector<bool> has(static_cast<std::size_t>(dim));
      for (std::size_t at = 0; at < chosen.size(); ++at) {
        ASSERT_LT(chosen[at], dim);
        ASSERT_TRUE(at == 0 || chosen[at - 1] < chosen[at]);
        has[chosen[at]] = true;
      }
      for (std::size_t at = 0; at < has.size(); ++at) {
        if (pairs == ChannelPairs::halves) {
          ASSERT_EQ(has[at], has[(at + has.size() / 2) % has.size()]);
        }
        if (pairs == ChannelPairs::interleaved) {
          ASSERT_EQ(has[at], has[at ^ 1U]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvast
