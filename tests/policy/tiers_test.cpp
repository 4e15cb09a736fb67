// SPDX-License-Identifier: Apache-2.0
// Policies of a user's own: by a value per head (tier 2) and by whole heads (tier 3), against naive
// references.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"
#include "tests/support/cutoff.h"

namespace kvast::test {
namespace {

/// Tier 2 with a budget: keeps the keys whose norm is nearest to the head's mean norm.
struct NearMean {
  int tokens_kept = 12;
  When when = When::step();
  static constexpr Needs needs{.key_norms = true};
  struct State {};
  struct Head {
    double sum = 0.0;
    int count = 0;
  };

  Head summarize(Token token, State) const { return {token.key_norm, 1}; }
  Head merge(Head left, Head right) const {
    return {left.sum + right.sum, left.count + right.count};
  }
  float rank(Token token, State, Head head) const {
    return static_cast<float>(-std::abs(token.key_norm - head.sum / head.count));
  }
  Budget budget(Layer) const { return tokens(tokens_kept); }
};
static_assert(check_policy<NearMean>());

class NearMeanRules : public Rules {
 public:
  explicit NearMeanRules(NearMean settings) : settings_(settings) {}
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    for (Line& line : heads) {
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
      if (target < 0) continue;
      double mean = 0.0;
      for (const Entry& entry : line) mean += entry.norm / live;
      for (Entry& entry : line) entry.score = -std::abs(entry.norm - mean);
      keep_best(
          line, target, [](const Entry&) { return false; }, margin);
    }
  }

 private:
  NearMean settings_;
};

class CutoffRules : public Rules {
 public:
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at)
        line[at].sum += std::max(0.0, row.weights[at]);
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    for (Line& line : heads) {
      double most = 0.0;
      for (const Entry& entry : line) most = std::max(most, entry.sum);
      for (const Entry& entry : line)
        margin = std::min(margin, std::abs(entry.sum - 0.25 * most) / most);
      std::erase_if(line, [&](const Entry& entry) {
        return moment.newest - entry.position >= 4 && entry.sum < 0.25 * most;
      });
    }
  }
};

/// Tier 3: picks the heaviest one after the other, as H2O without recent tokens would. Notes what
/// it was shown.
struct Picker {
  struct Notes {
    int calls = 0;
    int disorder = 0;
    int wrong_age = 0;
    int least_budget = 1 << 20;
  };
  int tokens_kept = 12;  ///< negative: no budget, and everything stays
  Notes* notes = nullptr;
  When when = When::step();
  static constexpr Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };

  void observe(State& state, Attention attention) const { state.mass += attention.weight; }
  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    ++notes->calls;
    std::vector<bool> keep(ranks.size(), false);
    notes->least_budget = std::min(notes->least_budget, view.budget);
    const int newest = view.tokens.back().position + view.tokens.back().age;
    for (std::size_t at = 0; at < view.tokens.size(); ++at) {
      const Token token = view.tokens[at];
      if (at > 0 && token.position <= view.tokens[at - 1].position) ++notes->disorder;
      if (token.position + token.age != newest) ++notes->wrong_age;
      if (view.budget < 0) keep[at] = true;
    }
    for (int picked = 0; picked < view.budget; ++picked) {
      std::size_t best = keep.size();
      for (std::size_t at = 0; at < keep.size(); ++at) {
        if (!keep[at] && (best == keep.size() || view.states[at].mass >= view.states[best].mass))
          best = at;
      }
      keep[best] = true;
    }
    for (std::size_t at = 0; at < keep.size(); ++at) ranks[at] = keep[at] ? kPin : kDrop;
  }
  Budget budget(Layer) const { return {tokens_kept}; }
};
static_assert(check_policy<Picker>());

template <class Storage>
class TierTest : public testing::Test {};
TYPED_TEST_SUITE(TierTest, Storages, StorageNames);

TYPED_TEST(TierTest, AHeadsMeanGuidesItsRanks) {
  Script script = conversation_script(31);
  script.norms = [](int head, int position) { return 1.0 + noise(31, 7, head, position); };
  for (const When when : {When::step(), When::prompt(), When::full(5)}) {
    const NearMean policy{.when = when};
    expect_simulated<TypeParam>(script, conversation(), policy,
                                [&] { return std::make_unique<NearMeanRules>(policy); });
  }
}

TYPED_TEST(TierTest, AHeadsMaximumCutsOffTheRest) {
  expect_simulated<TypeParam>(conversation_script(32), conversation(), Cutoff{},
                              [&] { return std::make_unique<CutoffRules>(); });
}

TYPED_TEST(TierTest, RanksThatIgnoreTheHeadAreTier1Ranks) {
  const Script script = conversation_script(33);
  const H2O h2o{.heavy = 9, .recent = 7};
  std::vector<H2O::State> seen;
  Run<H2O, TypeParam> plain(script, h2o);
  Run<Probe<H2O>, TypeParam> probed(script, {.inner = h2o, .seen = &seen});
  for (const Turn& turn : conversation()) {
    plain.pass(turn);
    probed.pass(turn);
    for (int head = 0; head < 2; ++head) ASSERT_EQ(probed.kept(head), plain.kept(head));
  }
}

TYPED_TEST(TierTest, WholeHeadsAreShownInOrderWithTheirStates) {
  const Script script = conversation_script(34);
  for (const When when : {When::step(), When::full(4), When::prompt()}) {
    Picker::Notes notes;
    Run<H2O, TypeParam> plain(script, H2O{.heavy = 12, .recent = 0, .when = when});
    Run<Picker, TypeParam> picker(script, {.notes = &notes, .when = when});
    for (const Turn& turn : conversation()) {
      plain.pass(turn);
      picker.pass(turn);
      for (int head = 0; head < 2; ++head) ASSERT_EQ(picker.kept(head), plain.kept(head));
    }
    EXPECT_GT(notes.calls, 0);
    EXPECT_EQ(notes.disorder, 0);
    EXPECT_EQ(notes.wrong_age, 0);
    EXPECT_EQ(notes.least_budget, 12 - (when.kind == When::Kind::full ? when.batch - 1 : 0));
  }
}

TYPED_TEST(TierTest, WholeHeadsWithoutABudgetAreToldSo) {
  Picker::Notes notes;
  Run<Picker, TypeParam> run(conversation_script(35), {.tokens_kept = -1, .notes = &notes});
  run.pass({.tokens = 40});
  EXPECT_EQ(notes.least_budget, -1);
  EXPECT_EQ(run.kept().size(), 40U);
}

// A slot that changes hands has the kind of its new token, also where none is given.
struct KeepsSpecialAndNewest {
  static constexpr Needs needs{.token_kinds = true};
  struct State {};
  float rank(Token token, State) const {
    return token.kind == TokenKind::special ? kPin : static_cast<float>(token.position);
  }
  Budget budget(Layer) const { return tokens(6); }
};

TEST(TokenKinds, DoNotStayBehindInTheirSlots) {
  BlockPool pool;
  KVCache<KeepsSpecialAndNewest, External> cache(Shape{.head_dim = 8}, {}, {}, pool);
  std::vector<TokenKind> kinds(8, TokenKind::other);
  kinds[6] = kinds[7] = TokenKind::special;
  for (int step = 0; step <= 20; ++step) {
    auto pass = step == 0 ? cache.begin({.tokens = 8, .kinds = kinds}) : cache.begin({});
    pass->append(0);
    pass->commit(0);
  }
  EXPECT_EQ(cache.kept(0, 0), (std::vector<int>{6, 7, 24, 25, 26, 27}));
}

/// Ranks by what a token is.
struct KeepsSpecial {
  static constexpr Needs needs{.token_kinds = true};
  struct State {};
  float rank(Token token, State) const {
    return token.kind == TokenKind::special || token.age < 2 ? kPin : kDrop;
  }
};

TEST(TokenKinds, TravelWithTheirTokens) {
  BlockPool pool;
  KVCache<KeepsSpecial, External> cache(Shape{.head_dim = 8}, {}, {}, pool);
  std::vector<int> special;
  for (int step = 0; step < 100; ++step) {
    const TokenKind kind = step % 7 == 3 ? TokenKind::special : TokenKind::punctuation;
    if (kind == TokenKind::special) special.push_back(step);
    auto pass = cache.begin({.kinds = std::span(&kind, 1)});
    pass->append(0);
    pass->commit(0);
  }
  for (const int newest : {98, 99}) special.push_back(newest);
  EXPECT_EQ(cache.kept(0, 0), special);
  {
    const std::vector<TokenKind> kinds(40, TokenKind::special);  // a pass that never happened
    auto dropped = cache.begin({.tokens = 40, .kinds = kinds});
    dropped->append(0);
  }
  auto pass = cache.begin({.tokens = 5});  // no kinds given: other
  pass->append(0);
  pass->commit(0);
  special.erase(special.end() - 2, special.end());
  for (const int newest : {103, 104}) special.push_back(newest);
  EXPECT_EQ(cache.kept(0, 0), special);
}

}  // namespace
}  // namespace kvast::test
