// SPDX-License-Identifier: Apache-2.0
// The real model against recordings of an independent implementation (tests/golden/model).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "bench/quality/any_cache.h"
#include "examples/decoder/llama.h"
#include "kvast/host/openmp.h"
#include "tests/examples/decoder/model_file.h"

namespace kvast::decoder {
namespace {

constexpr int kContext = 1024;
// Sanitizers slow the kernels down a hundredfold; they look for other faults than a wrong digit.
#if defined(__SANITIZE_ADDRESS__)
constexpr int kScored = 8;
constexpr int kPositions = 200;
#else
constexpr int kScored = 128;
constexpr int kPositions = 2000;
#endif

class Model : public WithModel {
 protected:
  void SetUp() override {
    WithModel::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const auto read = [](const char* path) {
      return nlohmann::json::parse(read_repository_file(path));
    };
    reference_ = read("tests/golden/model/reference.json");
    story_ = read("tests/golden/model/tokenizer.json")["story"]["ids"].get<std::vector<int>>();
  }

  std::span<const int> story(int first, int count) const {
    return std::span<const int>(story_).subspan(static_cast<std::size_t>(first),
                                                static_cast<std::size_t>(count));
  }
  double nats(const Llama& model, int row, int target) const {
    const auto logits = model.logits(row);
    const double most = static_cast<double>(logits[static_cast<std::size_t>(model.best(row))]);
    double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<double>(logit) - most);
    return std::log(total) + most - static_cast<double>(logits[static_cast<std::size_t>(target)]);
  }

  std::unique_ptr<quality::AnyCache> full_cache(const Llama& model) {
    return quality::make_cache("full", "f32",
                               {.shape = model.config().shape(),
                                .prompt_tokens = kContext,
                                .rope = {},
                                .executor = openmp(0),
                                .pool = &pool_});
  }

  nlohmann::json reference_;
  std::vector<int> story_;
  BlockPool pool_;
};

TEST_F(Model, PromptLogitsAgreeWithTheReference) {
  Llama model(gguf(), openmp(0));
  const auto made = full_cache(model);
  quality::AnyCache& cache = *made;
  const auto argmax = reference_["argmax"].get<std::vector<int>>();
  const std::string recorded = read_repository_file("tests/golden/model/logits.f32");
  int agreed = 0;
  double worst = 0;
  constexpr int kChunk = 100;
  std::vector<int> rows(kChunk);
  for (int row = 0; row < kChunk; ++row) rows[static_cast<std::size_t>(row)] = row;
  for (int first = 0; first < kPositions; first += kChunk) {
    ASSERT_TRUE(model.forward(cache, story(first, kChunk), first,
                              PassOptions{.tokens = kChunk, .more_of_prompt = true}, rows));
    for (int row = 0; row < kChunk; ++row) {
      agreed += model.best(row) == argmax[static_cast<std::size_t>(first + row)];
      const auto positions = reference_["logits"]["positions"].get<std::vector<int>>();
      for (std::size_t index = 0; index < positions.size(); ++index) {
        if (positions[index] != first + row) continue;
        for (std::size_t token = 0; token < model.logits(row).size(); ++token) {
          float expected = 0;
          std::memcpy(&expected, recorded.data() + 4 * (index * model.logits(row).size() + token),
                      4);
          worst =
              std::max(worst, std::fabs(static_cast<double>(model.logits(row)[token] - expected)));
        }
      }
    }
  }
  std::printf("top-1 %d of %d, logits within %.1e\n", agreed, kPositions, worst);
  EXPECT_GE(agreed, kPositions * 999 / 1000);
  EXPECT_LT(worst, 5e-3);
}

TEST_F(Model, GeneratedTokensScoreAsInTheReference) {
  const auto nll = reference_["nll"].get<std::vector<double>>();
  const auto argmax = reference_["argmax"].get<std::vector<int>>();
  Llama model(gguf(), openmp(0));
  const auto prompted = full_cache(model);
  ASSERT_TRUE(model.forward(*prompted, story(0, kContext - 1), 0,
                            PassOptions{.tokens = kContext - 1, .last_of_prompt = true}));
  for (const Precision precision : {Precision::fast, Precision::exact}) {
    model.set_precision(precision);
    const auto forked = prompted->fork();
    ASSERT_TRUE(forked);
    quality::AnyCache& cache = *forked;
    ASSERT_TRUE(model.forward(cache, story(kContext - 1, 1), kContext - 1, PassOptions{}));
    double sum = 0, expected = 0, worst = 0;
    int agreed = 0;
    for (int scored = 0; scored < kScored; ++scored) {
      const int position = kContext + scored;
      const double own = nats(model, 0, story_[static_cast<std::size_t>(position)]);
      const double recorded = nll[static_cast<std::size_t>(scored)];
      sum += own;
      expected += recorded;
      worst = std::max(worst, std::fabs(own - recorded));
      agreed += model.best() == argmax[static_cast<std::size_t>(position - 1)];
      ASSERT_TRUE(model.forward(cache, story(position, 1), position, PassOptions{}));
    }
    std::printf("precision %d: nll %.6f, recorded %.6f, worst token %.2e, top-1 %d of %d\n",
                static_cast<int>(precision), sum / kScored, expected / kScored, worst, agreed,
                kScored);
    EXPECT_NEAR(sum / kScored, expected / kScored, 1e-3);
    EXPECT_LT(worst, 0.05);
    EXPECT_GE(agreed, kScored - 1);
  }
}

}  // namespace
}  // namespace kvast::decoder
