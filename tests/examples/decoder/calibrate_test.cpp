// SPDX-License-Identifier: Apache-2.0
// Calibration of the decoder: what is summed is what a cache would get, and low rank with all of
// its directions is the model itself.
#include "examples/decoder/calibrate.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "bench/quality/any_cache.h"
#include "kvast/calibrate/calibration_file.h"
#include "kvast/calibrate/finalize.h"
#include "tests/examples/decoder/tiny_model.h"

namespace kvast::decoder {
namespace {

/// Keeps what arrives; attends to nothing.
class Recorder {
 public:
  explicit Recorder(const LlamaConfig& config) : width_(config.heads * config.head_dim) {}

  Status begin(const PassOptions& pass) {
    tokens_ = pass.tokens;
    return {};
  }
  void append(int layer, const float* keys, const float* values) {
    const auto count = static_cast<std::size_t>(tokens_ * width_);
    if (layer == 0) {
      keys_.assign(keys, keys + count);
      values_.assign(values, values + count);
    }
  }
  void attend(int, const float* queries, float* output) {
    std::copy_n(queries, tokens_ * 2 * width_, output);
  }
  void commit(int) {}
  bool wants_unrotated() const { return true; }

  int tokens_ = 0;
  int width_;
  std::vector<float> keys_, values_;
};

TEST(Calibrate, SumsWhatACacheWouldGet) {
  const TinyModel tiny(TensorType::f32);
  const auto file = tiny.writer.finish();
  const Gguf gguf(file);
  Llama model(gguf);
  const std::vector<int> tokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6};
  std::vector<int> heard;
  const Moments moments = observe_text(
      model, tokens, 8, [&] { return std::make_unique<Recorder>(model.config()); },
      [&](int done) { heard.push_back(done); });
  EXPECT_EQ(heard, (std::vector<int>{8, 16, 21}));
  EXPECT_EQ(moments.tokens(0), 21);
  double wanted = 0.0;
  for (std::size_t first = 0; first < tokens.size(); first += 8) {
    Recorder recorder(model.config());
    const auto window = std::span(tokens).subspan(first, std::min<std::size_t>(8, 21 - first));
    ASSERT_TRUE(model.forward(recorder, window, 0, PassOptions{}, std::span<const int>()));
    for (std::size_t at = 0; at < recorder.keys_.size(); at += 16)  // head_dim
      wanted +=
          static_cast<double>(recorder.keys_[at]) * static_cast<double>(recorder.keys_[at + 3]);
  }
  EXPECT_NEAR(moments.keys(0)[0](3, 0), wanted, 1e-5 * std::abs(wanted) + 1e-6);
}

TEST(Calibrate, WeightsGiveABasisPerHead) {
  const TinyModel tiny(TensorType::q8_0);
  const auto file = tiny.writer.finish();
  const Gguf gguf(file);
  const Llama model(gguf);
  const WeightCalibration weights = calibrate_weights(model);
  ASSERT_EQ(weights.calibration.layers.size(), 2U);
  EXPECT_EQ(calibration_mismatch(weights.calibration, model.config().shape()), "");
  const LayerDirections& layer = weights.calibration.layers[1];
  EXPECT_EQ(layer.keys.heads, 2);
  const auto numbers = model.value_projection(1);
  ASSERT_EQ(numbers.size(), 2U * 16 * 64);
  double norm = 0.0;
  double energy = 0.0;
  for (const float number : numbers)
    norm += static_cast<double>(number) * static_cast<double>(number);
  for (const double one : layer.values.energies) energy += one;
  EXPECT_NEAR(energy, norm, 1e-9 * norm);
}

/// Every direction kept in a basis of its own: the logits are those of the whole cache.
TEST(Calibrate, NearlyFullRankIsNearlyTheModel) {
  const TinyModel tiny(TensorType::f32);
  const auto file = tiny.writer.finish();
  const Gguf gguf(file);
  Llama model(gguf);
  std::vector<int> tokens;
  for (int at = 0; at < 60; ++at) tokens.push_back(at * 7 % 50);
  const std::string path = testing::TempDir() + "/kvast_calibrate_test.calibration";
  BlockPool pool;
  const auto setup = [&] {
    quality::CacheSetup made{.shape = model.config().shape(),
                             .prompt_tokens = 40,
                             .rope = model.config().rope,
                             .pool = &pool};
    made.weights = [&] {
      return std::make_shared<const WeightCalibration>(calibrate_weights(model));
    };
    return made;
  };
  const Moments moments = observe_text(
      model, tokens, 30,
      [&] { return quality::make_cache("full:positions=unrotated", "f32", setup()); }, [](int) {});
  ASSERT_TRUE(save_calibration(finalize(moments), path));
  const auto logits = [&](const std::string& storage) {
    const auto cache = quality::make_cache("full", storage, setup());
    PassOptions prompt;
    prompt.last_of_prompt = true;
    EXPECT_TRUE(model.forward(*cache, std::span(tokens).first(40), 0, prompt));
    for (std::size_t at = 40; at < tokens.size(); ++at)
      EXPECT_TRUE(model.forward(*cache, std::span(tokens).subspan(at, 1), static_cast<int>(at),
                                PassOptions{}));
    return std::vector<float>(model.logits().begin(), model.logits().end());
  };
  const auto distance = [](const std::vector<float>& one, const std::vector<float>& other) {
    double most = 0.0;
    for (std::size_t at = 0; at < one.size(); ++at)
      most = std::max(most, static_cast<double>(std::abs(one[at] - other[at])));
    return most;
  };
  const auto whole = logits("f32");
  const std::string eigen = "eigen:basis=\"" + path + "\",";
  EXPECT_LE(distance(logits(eigen + "rank=16+f32"), whole), 1e-6) << "all directions: no basis";
  const double half = distance(logits(eigen + "rank=8+f32"), whole);
  EXPECT_GT(half, 1e-3);
  EXPECT_LE(distance(logits("think:prune=0+f32"), whole), 1e-4);
  EXPECT_LE(distance(logits("lorc:rank=16,least=16+f32"), whole), 1e-6);
  EXPECT_GT(distance(logits("lorc:rank=16,least=8+f32"), whole), 1e-3);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace kvast::decoder
