// SPDX-License-Identifier: Apache-2.0
// Policies on the device, fed what a real model brings: its keys and values, and the weights of its
// queries. Few of these tie, and heads differ.
#include <nlohmann/json.hpp>

#if defined(_OPENMP)
#include "kvast/host/openmp.h"
#endif
#include "tests/examples/decoder/model_file.h"
#include "tests/simt/decoder/recording.h"

namespace kvast {
namespace {

constexpr int kFirst = 120, kSecond = 40;  // prompts

class RecordedPolicies : public decoder::WithModel {
 protected:
  void SetUp() override {
    WithModel::SetUp();
    if (IsSkipped() || HasFatalFailure() || numbers_ != nullptr) return;
    const auto texts =
        nlohmann::json::parse(decoder::read_repository_file("tests/golden/model/tokenizer.json"));
    const auto story = texts["story"]["ids"].get<std::vector<int>>();
#if defined(_OPENMP)
    decoder::Llama model(gguf(), openmp(0));
#else
    decoder::Llama model(gguf());
#endif
    shape_ = model.config().shape();
    numbers_ = std::make_shared<test::RecordedNumbers>();
    const auto count = static_cast<std::size_t>(kFirst + test::steps_of(kSteps, kLong) + 16);
    for (const std::size_t first : {std::size_t{0}, std::size_t{1000}}) {
      numbers_->add(
          test::Recorder(model, std::span(story).subspan(first, count), {0, shape_.layers / 2}));
    }
  }
  static void TearDownTestSuite() { numbers_ = nullptr; }

  template <class Policy, class S = Dense<half>>
  static void check(Policy policy, S storage = {}) {
    test::begin_schedule(test::kSchedules[0]);
    Shape layer = shape_;
    layer.layers = 1;
    test::Twins<Policy, S> twins(std::vector<Shape>{layer, layer}, policy, storage, numbers_);
    ASSERT_NO_FATAL_FAILURE(twins.pass({kFirst, kSecond}, true));
    ASSERT_NO_FATAL_FAILURE(twins.compare());
    const int steps = test::steps_of(kSteps, kLong);
    for (int step = 0; step < steps; ++step) {
      ASSERT_NO_FATAL_FAILURE(twins.pass({step == 7 ? 9 : 1, step % 5 == 0 ? 0 : 1}, false));
      if (step % 16 == 0 || step + 1 == steps) {
        ASSERT_NO_FATAL_FAILURE(twins.compare()) << "step " << step;
      }
    }
    EXPECT_EQ(twins.device().counters().missing, 0);
  }

 private:
  static constexpr int kSteps = 32, kLong = 2000;
  static inline std::shared_ptr<test::RecordedNumbers> numbers_;
  static inline Shape shape_{};
};

TEST_F(RecordedPolicies, H2O) {
  check(H2O{.heavy = 40, .recent = 20});
  check(H2O{.heavy = 40, .recent = 20}, Kivi<4>{.residual = 32});
}
TEST_F(RecordedPolicies, SnapKV) {
  check(SnapKV{.tokens_kept = 50, .window = 10});
  check(AdaHeads<SnapKV>{{.tokens_kept = 50, .window = 10}});
}
TEST_F(RecordedPolicies, Tova) { check(TOVA{.tokens_kept = 50, .recent = 4}); }
TEST_F(RecordedPolicies, Corm) { check(Corm{.window = 20, .recent = 8}); }
TEST_F(RecordedPolicies, Scissorhands) {
  check(Scissorhands{.tokens_kept = 60, .recent = 5, .window = 30, .when = When::full(20)});
}
TEST_F(RecordedPolicies, L2Norm) { check(L2Norm{.tokens_kept = 50, .recent = 5, .skip = {}}); }
TEST_F(RecordedPolicies, FastGen) { check(FastGen{.threshold = 0.8F, .frequent = 0.2F}); }
TEST_F(RecordedPolicies, Pyramid) { check(Pyramid<H2O>{{.heavy = 40, .recent = 10}}); }
TEST_F(RecordedPolicies, Composed) {
  check(PrefillThenDecode<SnapKV, H2O>{{.tokens_kept = 50, .window = 10},
                                       {.heavy = 40, .recent = 20}});
}
#if !defined(__CUDACC__)  // exp and log are the machine's, and ranks part in their last bits
TEST_F(RecordedPolicies, Keyformer) {
  check(Keyformer{.tokens_kept = 50, .recent = 12, .steps = 40}, Dense<float>{});
}
#endif

}  // namespace
}  // namespace kvast
