// SPDX-License-Identifier: Apache-2.0
// The decoder on a small random model, against the same model in double.
#include "examples/decoder/llama.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kvast/host/openmp.h"
#include "tests/examples/decoder/naive_cache.h"
#include "tests/examples/decoder/tiny_model.h"

namespace kvast::decoder {
namespace {

std::vector<int> random_tokens(int count, unsigned seed = 3) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> token(0, TinySizes{}.vocabulary - 1);
  std::vector<int> out(static_cast<std::size_t>(count));
  for (int& each : out) each = token(random);
  return out;
}

/// A model, the file it is read from, and logits computed in passes of given sizes.
struct Runner {
  explicit Runner(const TinyModel& tiny, Executor executor = serial(),
                  Precision precision = Precision::fast)
      : file(tiny.writer.finish()), gguf(file), model(gguf, executor, precision) {}

  std::vector<float> run(const std::vector<int>& tokens, const std::vector<int>& passes) {
    return run_passes(model, tokens, passes);
  }

  std::vector<std::byte> file;
  Gguf gguf;
  Llama model;
};

void expect_near(const std::vector<float>& actual, const std::vector<std::vector<double>>& expected,
                 double tolerance) {
  std::size_t at = 0;
  double worst = 0;
  for (const auto& row : expected) {
    for (const double logit : row) {
      worst = std::max(worst, std::fabs(static_cast<double>(actual.at(at++)) - logit));
    }
  }
  EXPECT_EQ(at, actual.size());
  EXPECT_LT(worst, tolerance);
}

class EveryType : public testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(Llama, EveryType,
                         testing::Values(TensorType::f32, TensorType::f16, TensorType::q4_0,
                                         TensorType::q4_1, TensorType::q8_0));

TEST_P(EveryType, LogitsAreThoseOfTheModelInDouble) {
  const TinyModel tiny(GetParam());
  const auto tokens = random_tokens(40);
  const auto expected = tiny.logits(tokens);
  Runner runner(tiny);
  expect_near(runner.run(tokens, {40}), expected, 1e-4);
  expect_near(runner.run(tokens, {33, 1, 2, 1, 3}), expected, 2e-3);
  expect_near(runner.run(tokens, std::vector<int>(40, 1)), expected, 2e-3);
  runner.model.set_precision(Precision::exact);
  expect_near(runner.run(tokens, std::vector<int>(40, 1)), expected, 1e-4);
}

TEST(Llama, UntiedOutputAndOneHead) {
  const TinyModel tiny(TensorType::q8_0,
                       {.query_heads = 3, .heads = 1, .head_dim = 32, .tied = false});
  const auto tokens = random_tokens(9);
  expect_near(Runner(tiny).run(tokens, {8, 1}), tiny.logits(tokens), 2e-3);
}

TEST(Llama, SameBitsOnAnyNumberOfThreads) {
  const TinyModel tiny(TensorType::q4_1);
  const auto tokens = random_tokens(70);
  const std::vector<int> passes{64, 1, 5};
  const auto alone = Runner(tiny).run({tokens.begin(), tokens.end()}, passes);
  EXPECT_EQ(alone, Runner(tiny, openmp(2)).run(tokens, passes));
  EXPECT_EQ(alone, Runner(tiny, openmp(3)).run(tokens, passes));
}

TEST(Llama, GivesTheRowsThatWereAskedFor) {
  const TinyModel tiny(TensorType::f32);
  const auto tokens = random_tokens(36);
  const auto expected = tiny.logits(tokens);
  Runner runner(tiny);
  NaiveCache cache(runner.model.config().shape());
  const std::vector<int> rows{0, 31, 32, 35};
  ASSERT_TRUE(runner.model.forward(cache, tokens, 0, NaivePass{}, rows));
  for (int index = 0; index < 4; ++index) {
    const auto& row = expected[static_cast<std::size_t>(rows[static_cast<std::size_t>(index)])];
    for (std::size_t token = 0; token < row.size(); ++token) {
      EXPECT_NEAR(static_cast<double>(runner.model.logits(index)[token]), row[token], 1e-4);
    }
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    EXPECT_EQ(runner.model.best(index), best);
  }
  EXPECT_THROW((void)runner.model.logits(4), std::out_of_range);
}

struct UnrotatedCache : NaiveCache {
  using NaiveCache::NaiveCache;
  bool wants_unrotated() const { return true; }
};

TEST(Llama, LeavesTheRotationToACacheThatAsksForIt) {
  const TinyModel tiny(TensorType::f32);
  Runner runner(tiny);
  const Shape shape = runner.model.config().shape();
  const auto keys = [&](auto cache, int first_position) {
    const std::vector<int> tokens{7, 7, 7};
    EXPECT_TRUE(runner.model.forward(cache, tokens, first_position, NaivePass{}));
    return cache.keys(0);
  };
  const auto plain = keys(UnrotatedCache(shape), 50);
  const std::size_t row = plain.size() / 3;
  EXPECT_TRUE(std::equal(plain.begin(), plain.begin() + static_cast<std::ptrdiff_t>(row),
                         plain.begin() + static_cast<std::ptrdiff_t>(row)));
  auto rotated = keys(NaiveCache(shape), 50);
  EXPECT_NE(plain, rotated);
  for (int token = 0; token < 3; ++token) {
    for (int head = 0; head < shape.heads; ++head) {
      float* key = rotated.data() + (token * shape.heads + head) * shape.head_dim;
      for (int pair = 0; pair < shape.head_dim / 2; ++pair) {
        const double angle = -(50 + token) * std::pow(500.0, -2.0 * pair / shape.head_dim);
        const double first = static_cast<double>(key[2 * pair]);
        const double second = static_cast<double>(key[2 * pair + 1]);
        key[2 * pair] = static_cast<float>(first * std::cos(angle) - second * std::sin(angle));
        key[2 * pair + 1] = static_cast<float>(first * std::sin(angle) + second * std::cos(angle));
      }
    }
  }
  for (std::size_t at = 0; at < plain.size(); ++at) EXPECT_NEAR(plain[at], rotated[at], 1e-5);
}

struct RefusingCache : NaiveCache {
  using NaiveCache::NaiveCache;
  Status begin(const NaivePass&) { return {StatusCode::pool_exhausted, "full"}; }
};

TEST(Llama, HandsOnTheCachesRefusal) {
  Runner runner{TinyModel(TensorType::f32)};
  RefusingCache cache(runner.model.config().shape());
  const std::vector<int> tokens{1};
  const Status status = runner.model.forward(cache, tokens, 0, NaivePass{});
  EXPECT_FALSE(status);
  EXPECT_EQ(status.message(), "full");
}

TEST(Llama, RefusesForeignTokensBeforeThePassBegins) {
  Runner runner{TinyModel(TensorType::f32)};
  NaiveCache cache(runner.model.config().shape());
  for (const std::vector<int>& tokens : {std::vector<int>{}, {-1}, {0, 50}}) {
    EXPECT_THROW((void)runner.model.forward(cache, tokens, 0, NaivePass{}, {}), std::out_of_range);
  }
  EXPECT_EQ(cache.length(), 0);
}

TEST(Llama, CountsTheTimeInsideTheCache) {
  Runner runner{TinyModel(TensorType::f32)};
  NaiveCache cache(runner.model.config().shape());
  const auto tokens = random_tokens(32);
  ASSERT_TRUE(runner.model.forward(cache, tokens, 0, NaivePass{}));
  EXPECT_GT(runner.model.cache_time().attend, 0.0);
  EXPECT_GT(runner.model.cache_time().append, 0.0);
  runner.model.reset_cache_time();
  EXPECT_EQ(runner.model.cache_time().attend, 0.0);
}

std::string refusal(const GgufWriter& writer) {
  const auto file = writer.finish();
  try {
    Llama(Gguf(file), serial());
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

TEST(Llama, NamesWhatItDoesNotRun) {
  const auto said = [](auto change) {
    TinyModel tiny(TensorType::f32);
    change(tiny.writer);
    return refusal(tiny.writer);
  };
  const auto has = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  has(said([](GgufWriter& w) { w.integer("llama.expert_count", 8); }), "mixture of experts");
  has(said([](GgufWriter& w) { w.text("llama.rope.scaling.type", "yarn"); }), "RoPE scaling");
  has(said([](GgufWriter& w) { w.tensor("blk.0.attn_q.bias", 0, {1}, "1234"); }), "attn_q.bias");
  GgufWriter other;
  other.text("general.architecture", "mamba");
  has(refusal(other), "'mamba'");
  GgufWriter empty;
  empty.text("general.architecture", "llama");
  has(refusal(empty), "llama.block_count");
  has(refusal(TinyModel(TensorType::f32, {.query_heads = 3, .heads = 2}).writer), "query heads");
  has(refusal(TinyModel(TensorType::f32, {.head_dim = 15}).writer), "RoPE width 15");
  has(refusal(TinyModel(TensorType::f32, {.announced_layers = 3}).writer), "no tensor 'blk.2.");
  has(refusal(TinyModel(TensorType::f32, {.announced_feed_forward = 95}).writer),
      "the metadata asks for [64, 95]");
  EXPECT_EQ(refusal(TinyModel(TensorType::f32).writer), "");
}

}  // namespace
}  // namespace kvast::decoder
