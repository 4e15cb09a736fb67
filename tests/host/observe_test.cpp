// SPDX-License-Identifier: Apache-2.0
// The weights that reach a policy: the reference's softmax column by column, in decode and in
// prefill, reduced over the group, replayed over chunks, and the same from the engine's own kernel.
#include "kvast/host/observe.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

constexpr int kColumns = 10;  ///< queries that a state can remember

struct Record {
  int count = 0;  ///< all queries seen
  float sum = 0.0F;
  float weight[kColumns] = {};  ///< of the query at position first + column
  int visible[kColumns] = {};
  int row[kColumns] = {};
};

/// Evicts nothing, and writes down what it was shown: rank() is called per live token at the
/// commit.
template <bool kReplays>
struct Recorder {
  int first = 0;  ///< position of the query in column 0
  int window = -1;
  std::vector<std::map<int, Record>>* heads = nullptr;  ///< [head][position]
  When when = When::step();
  static constexpr Needs needs{.attention = true};
  static constexpr bool replays = kReplays;
  using State = Record;
  int window_rows() const { return window; }
  void observe(State& state, Attention seen) const {
    if (kReplays && seen.row == 0) state = {};
    ++state.count;
    state.sum += seen.weight;
    const int column = seen.step - first;
    if (column < 0 || column >= kColumns) return;
    state.weight[column] = seen.weight;
    state.visible[column] = seen.visible;
    state.row[column] = seen.row;
  }
  float rank(Token token, State state) const {
    // slots without a token are ranked as well: they have a default state, or one that lives
    // elsewhere
    if (state.count > 0) {
      if (heads->empty() || heads->back().count(token.position) > 0) heads->emplace_back();
      heads->back()[token.position] = state;
    }
    return kPin;
  }
};

constexpr Shape kShape{.query_heads = 6, .heads = 2, .head_dim = 16, .value_dim = 24};

double reduced(Reduce reduce, const std::vector<double>& members) {
  double sum = 0.0;
  double most = 0.0;
  for (const double member : members) {
    sum += member;
    most = std::max(most, member);
  }
  if (reduce == Reduce::max) return most;
  return reduce == Reduce::sum ? sum : sum / static_cast<double>(members.size());
}

/// Runs `passes`, and compares the last pass's columns with the reference.
void expect_columns(const Shape& shape, const std::vector<int>& passes, Reduce reduce,
                    const AttendOptions& options = {}, const test::ReferenceRules& rules = {},
                    int window = -1) {
  int length = 0;
  for (const int tokens : passes) length += tokens;
  const int columns = std::min(kColumns, passes.back());
  std::vector<std::map<int, Record>> heads;
  const Recorder<false> policy{.first = length - columns, .window = window, .heads = &heads};
  Duel<Recorder<false>, Dense<float>> duel(shape, policy, {}, {.reduce = reduce});
  for (const int tokens : passes) {
    heads.clear();
    duel.run({.tokens = tokens}, options, rules);
  }
  ASSERT_EQ(static_cast<int>(heads.size()), shape.heads);
  const int group = shape.group();
  const int seen = window < 0 ? columns : std::min(columns, window);
  for (int head = 0; head < shape.heads; ++head) {
    auto& record = heads[static_cast<std::size_t>(head)];
    for (int column = columns - seen; column < columns; ++column) {
      const int position = length - columns + column;
      const int token = passes.back() - columns + column;
      std::vector<test::ReferenceSight> sights;
      for (int member = 0; member < group; ++member) {
        const int query_head = head * group + member;
        sights.push_back(duel.reference().attend(
            query_head, position,
            duel.queries.data() + (token * shape.query_heads + query_head) * shape.head_dim,
            rules));
      }
      for (std::size_t at = 0; at < duel.reference().kept(head).size(); ++at) {
        const int key = duel.reference().kept(head)[at].position;
        std::vector<double> members;
        for (const auto& sight : sights) members.push_back(sight.weights[at]);
        const Record& state = record[key];
        const bool hidden = key > position || (rules.window > 0 && key <= position - rules.window);
        const double wanted = hidden ? 0.0 : reduced(reduce, members);
        ASSERT_NEAR(static_cast<double>(state.weight[column]), wanted, 2e-6 + 2e-5 * wanted)
            << "key " << key << " query " << position << " head " << head;
        if (hidden) continue;
        ASSERT_EQ(state.visible[column], sights[0].visible) << "query " << position;
        const int rows = window < 0 ? passes.back() : std::min(passes.back(), window);
        ASSERT_EQ(state.row[column], token - (passes.back() - rows));
      }
    }
  }
}

TEST(Observe, DecodeAndPrefillGiveTheSoftmaxColumnByColumn) {
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    expect_columns(kShape, {40}, reduce);
    expect_columns(kShape, {1}, reduce);
    expect_columns(kShape, {100, 1}, reduce);
    expect_columns(kShape, {33, 1, 1, 7}, reduce);
    expect_columns(kShape, {64, 64}, reduce);
  }
}

TEST(Observe, EveryGroup) {
  for (const int group : {1, 2, 8, 63, 64, 65, 71, 130}) {
    for (const Reduce reduce : {Reduce::mean, Reduce::max}) {
      const Shape shape{.query_heads = 2 * group, .heads = 2, .head_dim = 16};
      expect_columns(shape, {40, 1}, reduce);
      expect_columns(shape, {40, 5}, reduce);
    }
  }
}

TEST(Observe, SplitsOfALongSequence) {
  expect_columns(kShape, {1100, 1}, Reduce::mean);
  expect_columns(kShape, {2100, 1}, Reduce::max);
  expect_columns(kShape, {1100, 3}, Reduce::mean);
}

TEST(Observe, OptionsChangeTheWeights) {
  const std::vector<float> sinks{0.5F, 1.0F, -2.0F, 0.0F, 3.0F, 1.0F};
  std::vector<float> bias(200);
  for (std::size_t at = 0; at < bias.size(); ++at) bias[at] = 0.1F * static_cast<float>(at % 30);
  const AttendOptions options{.scale = 0.4F,
                              .softcap = 3.0F,
                              .window = 21,
                              .sinks = sinks,
                              .bias = {.data = bias.data(), .positions = 200}};
  const test::ReferenceRules rules{.scale = static_cast<double>(0.4F),
                                   .softcap = 3.0,
                                   .window = 21,
                                   .sinks = sinks.data(),
                                   .bias = bias.data()};
  expect_columns(kShape, {60, 1}, Reduce::mean, options, rules);
  expect_columns(kShape, {60}, Reduce::sum, options, rules);
  expect_columns(kShape, {60, 8}, Reduce::max, options, rules);
}

TEST(Observe, WindowRowsAreTheLastOfAPass) {
  for (const int window : {1, 3, 8, 100}) {
    expect_columns(kShape, {50}, Reduce::mean, {}, {}, window);
    expect_columns(kShape, {50, 6}, Reduce::mean, {}, {}, window);
  }
}

TEST(Observe, NewestTokensOfARangeAreSummedOnce) {
  std::vector<std::map<int, Record>> heads;
  Duel<Recorder<false>, Dense<float>> duel(kShape, {.heads = &heads}, {});
  for (const int tokens : {40, 1, 1, 5}) {
    heads.clear();
    duel.run({.tokens = tokens});
  }
  double sum = 0.0;
  for (const auto& [position, record] : heads[1]) {
    sum += static_cast<double>(record.sum);
    EXPECT_EQ(record.count, 47 - position) << "every query from its own on, each once";
  }
  EXPECT_NEAR(sum, 47.0, 1e-3) << "each query gives its head a weight of one";
}

/// The vote of a prompt under a policy that replays, by position.
std::vector<std::map<int, Record>> vote(const std::vector<int>& chunks, int window,
                                        const AttendOptions& options = {}) {
  std::vector<std::map<int, Record>> heads;
  BlockPool pool;
  KVCache<Recorder<true>, Dense<float>> cache(
      kShape, {.first = 110, .window = window, .heads = &heads, .when = When::prompt()}, {}, pool);
  test::Random random(8);
  const auto keys = random.normals(120 * 32);
  const auto values = random.normals(120 * 48);
  const auto queries = random.normals(120 * 96, 2.0);
  int first = 0;
  for (const int tokens : chunks) {
    const bool last = first + tokens == 120;
    auto pass = cache.begin({.tokens = tokens, .last_of_prompt = last, .more_of_prompt = !last});
    std::vector<float> output(static_cast<std::size_t>(tokens * 144));
    pass->append(0, keys.data() + first * 32, values.data() + first * 48);
    pass->attend(0, queries.data() + first * 96, output.data(), options);
    pass->commit(0);
    first += tokens;
  }
  return heads;
}

TEST(Observe, ReplayedChunksGiveTheVoteOfTheWholePrompt) {
  const std::vector<float> sinks{0.5F, 1.0F, -2.0F, 0.0F, 3.0F, 1.0F};
  for (const int window : {1, 8, 40, 120}) {
    for (const bool with_options : {false, true}) {
      AttendOptions options;
      if (with_options) options = {.softcap = 3.0F, .window = 100, .sinks = sinks};
      const auto whole = vote({120}, window, options);
      ASSERT_EQ(whole.size(), 2U);
      for (const std::vector<int>& chunks : std::vector<std::vector<int>>{{60, 60},
                                                                          {119, 1},
                                                                          {1, 119},
                                                                          {50, 30, 20, 15, 5},
                                                                          {100, 4, 4, 4, 4, 4},
                                                                          {117, 1, 1, 1}}) {
        const auto chunked = vote(chunks, window, options);
        ASSERT_EQ(chunked.size(), 2U);
        for (std::size_t head = 0; head < 2; ++head) {
          ASSERT_EQ(chunked[head].size(), whole[head].size());
          for (const auto& [position, wanted] : whole[head]) {
            const Record& got = chunked[head].at(position);
            ASSERT_EQ(got.count, wanted.count) << position << " window " << window;
            ASSERT_NEAR(got.sum, wanted.sum, 1e-5 + 1e-5 * std::abs(wanted.sum)) << position;
            for (int column = 0; column < kColumns; ++column) {
              ASSERT_NEAR(got.weight[column], wanted.weight[column], 1e-6);
              ASSERT_EQ(got.visible[column], wanted.visible[column]);
              ASSERT_EQ(got.row[column], wanted.row[column]);
            }
          }
        }
      }
    }
  }
}

// The engine's own kernel: the same weights through External give the same states.
TEST(Observe, ExternalWeightsGiveTheStatesOfAttend) {
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    std::vector<std::map<int, Record>> inside;
    std::vector<std::map<int, Record>> outside;
    Duel<Recorder<false>, Dense<float>> duel(kShape, {.first = 70, .heads = &inside}, {},
                                             {.reduce = reduce});
    BlockPool pool;
    KVCache<Recorder<false>, External> cache(kShape, {.first = 70, .heads = &outside}, {}, pool,
                                             {.reduce = reduce});
    for (const int tokens : {70, 1, 5}) {
      inside.clear();
      outside.clear();
      const int first = cache.length();
      duel.run({.tokens = tokens});
      auto pass = cache.begin({.tokens = tokens});
      pass->append(0);
      const std::vector<int> slots = cache.slots(0, 0);
      const auto width = static_cast<std::int64_t>(slots.size());
      std::vector<float> weights(static_cast<std::size_t>(tokens * 6 * width), 7.0F);
      for (int token = 0; token < tokens; ++token) {
        for (int head = 0; head < 6; ++head) {
          const auto sight = duel.reference().attend(head, first + token,
                                                     duel.queries.data() + (token * 6 + head) * 16);
          for (std::size_t slot = 0; slot < slots.size(); ++slot) {
            // what a query cannot see is ignored, whatever the engine left there
            if (slots[slot] <= first + token)
              weights[static_cast<std::size_t>((token * 6 + head) * width) + slot] =
                  static_cast<float>(sight.weights[static_cast<std::size_t>(slots[slot])]);
          }
        }
      }
      pass->observe(0, {weights.data(), 6 * width, width});
      pass->commit(0);
    }
    ASSERT_EQ(inside.size(), 2U);
    ASSERT_EQ(outside.size(), 2U);
    for (std::size_t head = 0; head < 2; ++head) {
      for (const auto& [position, wanted] : inside[head]) {
        const Record& got = outside[head].at(position);
        EXPECT_EQ(got.count, wanted.count);
        EXPECT_NEAR(got.sum, wanted.sum, 2e-5 * (1.0F + wanted.sum));
        for (int column = 0; column < kColumns; ++column) {
          EXPECT_NEAR(got.weight[column], wanted.weight[column], 1e-6);
          EXPECT_EQ(got.visible[column], wanted.visible[column]);
          EXPECT_EQ(got.row[column], wanted.row[column]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvast
