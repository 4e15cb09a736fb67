// SPDX-License-Identifier: Apache-2.0
// Keyformer against its definition, with noise of its own making.
#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

/// The noise as it is documented: splitmix64 over seed, layer, head, query and key.
double gumbel(std::uint64_t seed, int layer, int head, int step, int position) {
  std::uint64_t bits = seed;
  for (const int part : {0, layer, head, step, position}) {
    bits = (bits ^ static_cast<std::uint64_t>(part)) + 0x9E3779B97F4A7C15U;
    bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
    bits ^= bits >> 31U;
  }
  const double uniform = (static_cast<double>(bits >> 41U) + 0.5) / 8388608.0;
  return -std::log(-std::log(uniform));
}

class KeyformerRules : public Rules {
 public:
  explicit KeyformerRules(Keyformer settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      const double way = std::min(1.0, row.generated / static_cast<double>(settings_.steps));
      const double tau = static_cast<double>(settings_.tau_begin) * (1.0 - way) +
                         static_cast<double>(settings_.tau_end) * way;
      std::vector<double> powers(line.size(), 0.0);
      double sum = 0.0;
      for (std::size_t at = 0; at < line.size(); ++at) {
        if (row.weights[at] < 0.0) continue;
        const double chance = settings_.noise ? gumbel(settings_.seed, line_layer, line_head,
                                                       row.step, line[at].position)
                                              : 0;
        sum += powers[at] = std::exp((std::log(row.weights[at]) + chance) / tau);
      }
      for (std::size_t at = 0; at < line.size(); ++at) line[at].score += powers[at] / sum;
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    for (Line& line : heads) {
      const int target = cut_to(settings_.when, settings_.tokens_kept,
                                static_cast<int>(line.size()), moment.ends_prompt);
      if (target < 0) continue;
      keep_best(
          line, target,
          [&](const Entry& entry) { return moment.newest - entry.position < settings_.recent; },
          margin);
    }
  }

 private:
  Keyformer settings_;
};

template <class Storage>
class KeyformerTest : public testing::Test {};
TYPED_TEST_SUITE(KeyformerTest, Storages, StorageNames);

TYPED_TEST(KeyformerTest, KeepsWhatItsDefinitionKeeps) {
  const Keyformer plain{.tokens_kept = 20, .recent = 6, .tau_end = 2.5F, .steps = 30, .seed = 9};
  Keyformer calm = plain;
  calm.noise = false;
  Keyformer batched = plain;
  batched.when = When::full(5);
  const Shape shape{.layers = 2, .query_heads = 6, .heads = 2};
  for (const Keyformer& policy : {plain, calm, batched}) {
    expect_simulated<TypeParam>(conversation_script(83, shape), conversation(), policy,
                                [&] { return std::make_unique<KeyformerRules>(policy); });
  }
}

TYPED_TEST(KeyformerTest, WithoutNoiseAndAtTemperatureOneItIsH2O) {
  const Script script = conversation_script(82);
  Run<Keyformer, TypeParam> keyformer(
      script, {.tokens_kept = 18, .recent = 6, .tau_end = 1.0F, .noise = false});
  Run<H2O, TypeParam> h2o(script, {.heavy = 12, .recent = 6});
  for (const Turn& turn : conversation()) {
    keyformer.pass(turn);
    h2o.pass(turn);
    for (int head = 0; head < 2; ++head) ASSERT_EQ(keyformer.kept(head), h2o.kept(head));
  }
}

TEST(Keyformer, IsRepeatedByItsSeedAndChangedByAnother) {
  const auto kept = [](std::uint64_t seed) {
    test::Run<Keyformer, Dense<float>> run(conversation_script(83),
                                           {.tokens_kept = 20, .recent = 6, .seed = seed});
    for (const Turn& turn : conversation()) run.pass(turn);
    return run.kept();
  };
  EXPECT_EQ(kept(3), kept(3));
  EXPECT_NE(kept(3), kept(4));
}

// Gumbel(0, 1) has mean 0.5772 and variance pi^2 / 6: one step over equal weights shows it.
TEST(Keyformer, ItsNoiseIsGumbels) {
  const Keyformer policy{};
  double sum = 0.0;
  double squares = 0.0;
  constexpr int kDraws = 100000;
  for (int position = 0; position < kDraws; ++position) {
    const float weight = policy.weigh({.position = position}, {.weight = 1.0F, .step = kDraws});
    const double noise = std::log(static_cast<double>(weight));
    ASSERT_TRUE(std::isfinite(noise));
    sum += noise;
    squares += noise * noise;
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 0.5772, 0.02);
  EXPECT_NEAR(squares / kDraws - mean * mean, 1.6449, 0.05);
}

TEST(KeyformerSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(Keyformer{.tokens_kept = 5, .recent = 6}, {"Keyformer.tokens_kept", "6"});
  expect_policy_refused(Keyformer{.tau_begin = 0.0F}, {"Keyformer.tau_begin", "0", "0.25"});
  expect_policy_refused(Keyformer{.tau_end = -1.0F}, {"Keyformer.tau_end", "-1"});
  expect_policy_refused(Keyformer{.steps = 0}, {"Keyformer.steps", "0"});
}

}  // namespace
}  // namespace kvast::test
