// SPDX-License-Identifier: Apache-2.0
// The same tensors keep the same tokens as in kvpress, head by head.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvast/kvast.h"
#include "tests/support/golden.h"

namespace kvast::test {
namespace {

GoldenFolder& recorded() {
  static GoldenFolder folder("tests/golden/kvpress");
  return folder;
}

/// The queries at the end of `tokens` rows; rows that a press does not look at are zero.
std::vector<float> padded(const GoldenTensor& queries, int tokens) {
  std::vector<float> rows(static_cast<std::size_t>(tokens) *
                          static_cast<std::size_t>(queries.heads * queries.dim));
  std::copy(queries.numbers.begin(), queries.numbers.end(),
            rows.end() - static_cast<std::ptrdiff_t>(queries.numbers.size()));
  return rows;
}

/// The recorded queries of ExpectedAttention are unrotated: RoPE, in double.
void turn(std::vector<float>& rows, const Shape& shape, double base) {
  const int dim = shape.head_dim;
  for (std::size_t row = 0; row < rows.size() / static_cast<std::size_t>(dim); ++row) {
    float* vector = rows.data() + row * static_cast<std::size_t>(dim);
    const auto position = static_cast<double>(row / static_cast<std::size_t>(shape.query_heads));
    for (int pair = 0; pair < dim / 2; ++pair) {
      const double angle = position * std::pow(base, -2.0 * pair / dim);
      const auto first = static_cast<double>(vector[pair]);
      const auto second = static_cast<double>(vector[pair + dim / 2]);
      vector[pair] = static_cast<float>(first * std::cos(angle) - second * std::sin(angle));
      vector[pair + dim / 2] =
          static_cast<float>(first * std::sin(angle) + second * std::cos(angle));
    }
  }
}

/// One prompt under a policy, against what the press kept.
template <class Policy>
void expect_kept(const GoldenCase& golden, Policy policy) {
  const GoldenTensor& keys = recorded().tensor(golden.keys);
  const GoldenTensor& values = recorded().tensor(golden.values);
  const int query_heads =
      golden.queries.empty() ? keys.heads : recorded().tensor(golden.queries).heads;
  const Shape shape{.query_heads = query_heads, .heads = keys.heads, .head_dim = keys.dim};
  BlockPool pool;
  CacheOptions options;
  if (Policy::needs.query_moments)
    options.rope = Rope::plain(keys.dim, golden.rope_base, Pairing::halves);
  KVCache<Policy, AnyStorage> cache(shape, policy, Dense<float>{}, pool, options);
  auto pass = cache.begin({.tokens = keys.tokens, .last_of_prompt = true});
  pass->append(0, std::span(keys.numbers), std::span(values.numbers));
  if (!golden.queries.empty()) {
    std::vector<float> queries = padded(recorded().tensor(golden.queries), keys.tokens);
    if (Policy::needs.query_moments) turn(queries, shape, golden.rope_base);
    std::vector<float> output(queries.size());
    pass->attend(0, std::span<const float>(queries), std::span<float>(output));
  }
  pass->commit(0);
  ASSERT_EQ(static_cast<int>(golden.kept.size()), keys.heads);
  for (int head = 0; head < keys.heads; ++head) {
    EXPECT_EQ(cache.kept(0, head), golden.kept[static_cast<std::size_t>(head)])
        << golden.press << ' ' << golden.params << " removing " << golden.ratio_removed << " of "
        << golden.source << ", head " << head;
  }
}

/// Runs every recorded case of a press; `make(case, tokens kept per head)` is our policy for it.
template <class Make>
void expect_all(const std::string& press, Make make) {
  const std::vector<GoldenCase> cases = recorded().cases(press);
  EXPECT_GE(cases.size(), 9U) << press;
  for (const GoldenCase& golden : cases)
    expect_kept(golden, make(golden, static_cast<int>(golden.kept.at(0).size())));
}

TEST(Kvpress, KnormPress) {
  expect_all("Knorm", [](const GoldenCase&, int kept) {
    return L2Norm{.tokens_kept = kept, .skip = LayerSet{}, .when = When::prompt()};
  });
}

TEST(Kvpress, StreamingLLMPress) {
  expect_all("StreamingLLM", [](const GoldenCase& golden, int kept) {
    const int sinks = golden.params.at("n_sink");
    return StreamingLLM{.sinks = sinks, .recent = kept - sinks, .when = When::prompt()};
  });
}

TEST(Kvpress, TOVAPress) {
  expect_all("TOVA", [](const GoldenCase&, int kept) {
    return TOVA{.tokens_kept = kept, .recent = 1, .when = When::prompt()};
  });
}

TEST(Kvpress, SnapKVPress) {
  expect_all("SnapKV", [](const GoldenCase& golden, int kept) {
    const int width = golden.params.at("kernel_size");
    return SnapKV{.tokens_kept = kept,
                  .window = golden.params.at("window_size"),
                  .pooling = {.width = width, .kind = Pooling::Kind::average}};
  });
}

// Column sums divided by how many queries saw the token: H2O by lifetime without recent tokens.
TEST(Kvpress, ObservedAttentionPress) {
  expect_all("ObservedAttention", [](const GoldenCase&, int kept) {
    return H2O{.heavy = kept, .recent = 0, .by_lifetime = true, .when = When::prompt()};
  });
}

// Its counts are not ours (see tests/golden/kvpress/README.md); given the count, the layer's set is
// SnapKV's.
TEST(Kvpress, PyramidKVPress) {
  expect_all("PyramidKV", [](const GoldenCase& golden, int kept) {
    const int width = golden.params.at("kernel_size");
    const int window = golden.params.at("window_size");
    PerLayerBudget<SnapKV> policy{
        {.tokens_kept = std::max(kept, window), .window = window, .pooling = {.width = width}}, {}};
    policy.budgets.layers = 1;
    policy.budgets.tokens[0] = kept;
    return policy;
  });
}

// Its counts for each layer, which those kept sets were given.
TEST(Kvpress, PyramidKVPressCounts) {
  int differ = 0;
  for (const GoldenCase& golden : recorded().cases("PyramidKV")) {
    const int prompt = recorded().tensor(golden.keys).tokens;
    const int window = golden.params.at("window_size");
    const Pyramid<SnapKV> policy{{.tokens_kept = prompt, .window = window},
                                 golden.params.at("beta"),
                                 1.0 - golden.ratio_removed};
    const auto kept = static_cast<int>(golden.kept.at(0).size());
    EXPECT_EQ(policy.budget({golden.layer, golden.layers, prompt}).tokens, kept) << golden.params;
    differ += kept != static_cast<int>(std::nearbyint(prompt * (1.0 - golden.ratio_removed)));
  }
  EXPECT_GT(differ, 10) << "layers whose count is not the mean";
}

TEST(Kvpress, KeyDiffPress) {
  expect_all("KeyDiff", [](const GoldenCase&, int kept) { return KeyDiff{.tokens_kept = kept}; });
}

TEST(Kvpress, LagKVPress) {
  expect_all("LagKV", [](const GoldenCase& golden, int kept) {
    return LagKV{.tokens_kept = kept,
                 .sinks = golden.params.at("n_sink"),
                 .lag = golden.params.at("lag_size"),
                 .across = golden.params.at("cross_scoring")};
  });
}

/// The cases where AdaKV wraps `inner`; `make(its parameters, mean tokens per head)` is our policy.
template <class Make>
void expect_shared(const std::string& inner, Make make) {
  int cases = 0;
  for (const GoldenCase& golden : recorded().cases("AdaKV")) {
    if (golden.params.at("press") != inner) continue;
    ++cases;
    int total = 0;
    for (const auto& head : golden.kept) total += static_cast<int>(head.size());
    const auto policy =
        make(golden.params.at("press_params"), total / static_cast<int>(golden.kept.size()));
    AdaHeads<std::remove_const_t<decltype(policy)>> shared{policy};
    shared.safeguard = golden.params.at("alpha_safeguard");
    shared.kind = Allocation::Kind::floor;
    expect_kept(golden, shared);
  }
  EXPECT_GE(cases, 9) << inner;
}

TEST(Kvpress, AdaKVPressOverSnapKV) {
  expect_shared("SnapKV", [](const nlohmann::json& params, int kept) {
    const int width = params.at("kernel_size");
    return SnapKV{
        .tokens_kept = kept, .window = params.at("window_size"), .pooling = {.width = width}};
  });
}

TEST(Kvpress, AdaKVPressOverKeyDiff) {
  expect_shared("KeyDiff",
                [](const nlohmann::json&, int kept) { return KeyDiff{.tokens_kept = kept}; });
}

ExpectedAttention expected(const nlohmann::json& params, int kept) {
  return {.tokens_kept = kept,
          .sinks = params.at("n_sink"),
          .future = params.at("n_future_positions"),
          .covariance = params.at("use_covariance"),
          .value_norms = params.at("use_vnorm"),
          .epsilon = params.at("epsilon")};
}

TEST(Kvpress, ExpectedAttentionPress) {
  expect_all("ExpectedAttention",
             [](const GoldenCase& golden, int kept) { return expected(golden.params, kept); });
}

TEST(Kvpress, AdaKVPressOverExpectedAttention) { expect_shared("ExpectedAttention", expected); }

TEST(Kvpress, AdaKVPressOverKnorm) {
  expect_shared("Knorm", [](const nlohmann::json&, int kept) {
    return L2Norm{.tokens_kept = kept, .skip = LayerSet{}, .when = When::prompt()};
  });
}

}  // namespace
}  // namespace kvast::test
