// SPDX-License-Identifier: Apache-2.0
// Every number that a policy or a wrapper can be given, at its extremes: refused by name when the
// cache is made, or it works.
#include <cmath>
#include <limits>

#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

/// A prompt in one pass and a few steps; true if the cache was made, else the refusal must name
/// `field` or the policy.
template <class Policy>
bool works_or_is_refused(const Policy& policy, const std::string& field, const std::string& value) {
  SCOPED_TRACE(field + " = " + value);
  const Shape shape{.layers = 3, .query_heads = 2, .heads = 2, .head_dim = 96};
  try {
    Run<Policy, Dense<float>> run(conversation_script(77, shape), policy);
    run.pass({.tokens = 70, .last_of_prompt = true});
    for (int step = 0; step < 12; ++step) run.pass({});
    EXPECT_LE(run.kept().size(), 82U);
    return true;
  } catch (const Error& error) {
    const std::string policy_name = field.substr(0, field.find('.'));
    EXPECT_NE(std::string(error.what()).find(policy_name), std::string::npos) << error.what();
    return false;
  }
}

constexpr int kLeast = std::numeric_limits<int>::min();
constexpr int kMost = std::numeric_limits<int>::max();

/// `set(policy, number)` with whole numbers; negative ones are refused unless `negative` is fine.
template <class Policy, class Set>
void sweep_whole(Policy policy, const std::string& field, Set set, bool negative = false) {
  for (const int number : {kLeast, -1, 0, 1, 2, 33, 1 << 20, 1 << 30, kMost}) {
    Policy other = policy;
    set(other, number);
    const bool made = works_or_is_refused(other, field, std::to_string(number));
    if (number < 0) {
      EXPECT_EQ(made, negative) << field << " = " << number;
    }
  }
}

/// The same with real ones; NaN and infinities are always refused.
template <class Policy, class Set>
void sweep_real(Policy policy, const std::string& field, Set set) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double number : {std::numeric_limits<double>::quiet_NaN(), -infinity, infinity, -1.0,
                              -0.0, 0.0, 1e-30, 0.5, 1.0, 1.5, 1e30}) {
    Policy other = policy;
    set(other, number);
    const bool made = works_or_is_refused(other, field, std::to_string(number));
    if (!std::isfinite(number) || number < 0.0) {
      EXPECT_FALSE(made) << field << " = " << number;
    }
  }
}

/// When it acts, for those that have a choice.
template <class Policy>
void sweep_when(Policy policy, const std::string& name) {
  sweep_whole(policy, name + ".when.batch",
              [](Policy& p, int number) { p.when = When::full(number); });
  policy.when.kind = static_cast<When::Kind>(3);
  EXPECT_FALSE(works_or_is_refused(policy, name + ".when.kind", "3"));
}

/// The two fields that many have.
template <class Policy>
void sweep_kept(Policy policy, const std::string& name) {
  sweep_whole(policy, name + ".tokens_kept", [](Policy& p, int number) { p.tokens_kept = number; });
  sweep_whole(policy, name + ".recent", [](Policy& p, int number) { p.recent = number; });
  sweep_when(policy, name);
}

TEST(Settings, OfPoliciesThatLookAtPositionsAndVectors) {
  sweep_whole(StreamingLLM{}, "StreamingLLM.sinks", [](StreamingLLM& p, auto number) {
    p.sinks = static_cast<decltype(p.sinks)>(number);
  });
  sweep_whole(StreamingLLM{}, "StreamingLLM.recent", [](StreamingLLM& p, auto number) {
    p.recent = static_cast<decltype(p.recent)>(number);
  });
  sweep_when(StreamingLLM{.recent = 20}, "StreamingLLM");
  sweep_kept(L2Norm{.tokens_kept = 30, .skip = {}}, "L2Norm");
  sweep_kept(kvast::Random{.tokens_kept = 30}, "Random");
  sweep_kept(KeyDiff{.tokens_kept = 30}, "KeyDiff");
  const LagKV lag{.tokens_kept = 30, .lag = 8};
  sweep_whole(lag, "LagKV.tokens_kept", [](LagKV& p, auto number) {
    p.tokens_kept = static_cast<decltype(p.tokens_kept)>(number);
  });
  sweep_whole(lag, "LagKV.sinks",
              [](LagKV& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_whole(lag, "LagKV.lag",
              [](LagKV& p, auto number) { p.lag = static_cast<decltype(p.lag)>(number); });
  sweep_whole(LagKV{.tokens_kept = kMost}, "LagKV.sinks",
              [](LagKV& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_when(lag, "LagKV");
  const ExpectedAttention expected{.tokens_kept = 30, .future = 9};
  sweep_whole(expected, "ExpectedAttention.tokens_kept", [](ExpectedAttention& p, auto number) {
    p.tokens_kept = static_cast<decltype(p.tokens_kept)>(number);
  });
  sweep_whole(expected, "ExpectedAttention.sinks", [](ExpectedAttention& p, auto number) {
    p.sinks = static_cast<decltype(p.sinks)>(number);
  });
  for (const int future : {kLeast, -1, 0, (1 << 20) + 1, kMost}) {
    ExpectedAttention far = expected;
    far.future = future;
    EXPECT_FALSE(works_or_is_refused(far, "ExpectedAttention.future", std::to_string(future)));
  }
  sweep_real(expected, "ExpectedAttention.epsilon", [](ExpectedAttention& p, auto number) {
    p.epsilon = static_cast<decltype(p.epsilon)>(number);
  });
}

TEST(Settings, OfPoliciesThatLookAtAttention) {
  sweep_whole(H2O{.recent = 9}, "H2O.heavy",
              [](H2O& p, auto number) { p.heavy = static_cast<decltype(p.heavy)>(number); });
  sweep_whole(H2O{.heavy = 9}, "H2O.recent",
              [](H2O& p, auto number) { p.recent = static_cast<decltype(p.recent)>(number); });
  sweep_when(H2O{.heavy = 20, .recent = 20}, "H2O");
  sweep_kept(TOVA{.tokens_kept = 30}, "TOVA");
  sweep_whole(Corm{}, "Corm.window",
              [](Corm& p, auto number) { p.window = static_cast<decltype(p.window)>(number); });
  sweep_whole(Corm{}, "Corm.recent",
              [](Corm& p, auto number) { p.recent = static_cast<decltype(p.recent)>(number); });
  sweep_whole(
      Corm{.recent = 20}, "Corm.cap",
      [](Corm& p, auto number) { p.cap = static_cast<decltype(p.cap)>(number); }, true);
  sweep_when(Corm{.window = 9, .recent = 20}, "Corm");
  sweep_kept(Scissorhands{.tokens_kept = 30, .when = When::full(8)}, "Scissorhands");
  sweep_whole(Scissorhands{}, "Scissorhands.window", [](Scissorhands& p, auto number) {
    p.window = static_cast<decltype(p.window)>(number);
  });
  const Keyformer keyformer{.tokens_kept = 30, .recent = 9};
  sweep_kept(keyformer, "Keyformer");
  sweep_whole(keyformer, "Keyformer.steps",
              [](Keyformer& p, auto number) { p.steps = static_cast<decltype(p.steps)>(number); });
  sweep_real(keyformer, "Keyformer.tau_begin", [](Keyformer& p, auto number) {
    p.tau_begin = static_cast<decltype(p.tau_begin)>(number);
  });
  sweep_real(keyformer, "Keyformer.tau_end", [](Keyformer& p, auto number) {
    p.tau_end = static_cast<decltype(p.tau_end)>(number);
  });
  const RoCo roco{.tokens_kept = 30};
  sweep_kept(roco, "RoCo");
  sweep_whole(roco, "RoCo.sinks",
              [](RoCo& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_real(roco, "RoCo.spared",
             [](RoCo& p, auto number) { p.spared = static_cast<decltype(p.spared)>(number); });
  const Cascading cascading{.sinks = 2, .rings = 2, .ring = 9};
  sweep_whole(cascading, "Cascading.sinks",
              [](Cascading& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_whole(cascading, "Cascading.rings",
              [](Cascading& p, auto number) { p.rings = static_cast<decltype(p.rings)>(number); });
  sweep_whole(cascading, "Cascading.ring",
              [](Cascading& p, auto number) { p.ring = static_cast<decltype(p.ring)>(number); });
  sweep_real(cascading, "Cascading.forget",
             [](Cascading& p, auto number) { p.forget = static_cast<decltype(p.forget)>(number); });
  sweep_when(cascading, "Cascading");
}

TEST(Settings, OfPoliciesThatLookAtPrompts) {
  const SnapKV snap{.tokens_kept = 40, .window = 8};
  sweep_whole(snap, "SnapKV.tokens_kept", [](SnapKV& p, auto number) {
    p.tokens_kept = static_cast<decltype(p.tokens_kept)>(number);
  });
  sweep_whole(snap, "SnapKV.window",
              [](SnapKV& p, auto number) { p.window = static_cast<decltype(p.window)>(number); });
  sweep_whole(snap, "SnapKV.pooling.width",
              [](SnapKV& p, auto number) { p.pooling.width = number; });
  sweep_when(snap, "SnapKV");
  SnapKV odd = snap;
  odd.pooling.kind = static_cast<Pooling::Kind>(2);
  EXPECT_FALSE(works_or_is_refused(odd, "SnapKV.pooling.kind", "2"));
  odd = snap;
  odd.reduce = static_cast<Reduce>(3);
  EXPECT_FALSE(works_or_is_refused(odd, "SnapKV.reduce", "3"));
  sweep_real(FastGen{}, "FastGen.threshold", [](FastGen& p, auto number) {
    p.threshold = static_cast<decltype(p.threshold)>(number);
  });
  sweep_real(FastGen{}, "FastGen.frequent", [](FastGen& p, auto number) {
    p.frequent = static_cast<decltype(p.frequent)>(number);
  });
  sweep_real(FastGen{}, "FastGen.local",
             [](FastGen& p, auto number) { p.local = static_cast<decltype(p.local)>(number); });
  sweep_whole(FastGen{}, "FastGen.rows",
              [](FastGen& p, auto number) { p.rows = static_cast<decltype(p.rows)>(number); });
  sweep_when(FastGen{.threshold = 0.5F}, "FastGen");
  sweep_real(DBudgetKV{}, "DBudgetKV.threshold", [](DBudgetKV& p, auto number) {
    p.threshold = static_cast<decltype(p.threshold)>(number);
  });
  sweep_whole(DBudgetKV{}, "DBudgetKV.sinks",
              [](DBudgetKV& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_whole(DBudgetKV{}, "DBudgetKV.recent", [](DBudgetKV& p, auto number) {
    p.recent = static_cast<decltype(p.recent)>(number);
  });
  sweep_when(DBudgetKV{}, "DBudgetKV");
}

TEST(Settings, OfWrappers) {
  using Spared = Protect<TOVA>;
  const Spared spared{{.tokens_kept = 30}, 2, 2};
  sweep_whole(spared, "Protect.sinks",
              [](Spared& p, auto number) { p.sinks = static_cast<decltype(p.sinks)>(number); });
  sweep_whole(spared, "Protect.newest",
              [](Spared& p, auto number) { p.newest = static_cast<decltype(p.newest)>(number); });
  // what is always kept is more than an int can hold
  using Huge = Protect<kvast::Random>;
  EXPECT_FALSE(works_or_is_refused(Huge{{.tokens_kept = kMost, .recent = kMost}, 4, 0},
                                   "Protect.sinks", "4 beside 2^31 - 1 newest"));
  using Wider = Protect<Protect<kvast::Random>>;
  EXPECT_FALSE(works_or_is_refused(
      Wider{{{.tokens_kept = kMost, .recent = kMost}, 1 << 29, 0}, 1, 0}, "Protect.sinks", "1"));
  using Shared = AdaHeads<H2O>;
  const Shared shared{{.heavy = 20, .recent = 9}};
  sweep_real(shared, "AdaHeads.safeguard", [](Shared& p, auto number) {
    p.safeguard = static_cast<decltype(p.safeguard)>(number);
  });
  Shared odd = shared;
  odd.kind = static_cast<Allocation::Kind>(2);
  EXPECT_FALSE(works_or_is_refused(odd, "AdaHeads.kind", "2"));
  using Steep = Pyramid<H2O>;
  const Steep steep{{.heavy = 20, .recent = 9}};
  sweep_real(steep, "Pyramid.beta",
             [](Steep& p, auto number) { p.beta = static_cast<decltype(p.beta)>(number); });
  sweep_real(steep, "Pyramid.kvpress",
             [](Steep& p, auto number) { p.kvpress = static_cast<decltype(p.kvpress)>(number); });
  sweep_whole(steep, "H2O.heavy",
              [](Steep& p, auto number) { p.heavy = static_cast<decltype(p.heavy)>(number); });
  using Layers = PerLayerBudget<TOVA>;
  const Layers layers{{.tokens_kept = 30}, funnel(3, 20)};
  sweep_whole(layers, "PerLayerBudget.budgets",
              [](Layers& p, auto number) { p.budgets.tokens[1] = number; });
  sweep_whole(layers, "PerLayerBudget.budgets",
              [](Layers& p, auto number) { p.budgets.layers = number; });
}

}  // namespace
}  // namespace kvast::test
