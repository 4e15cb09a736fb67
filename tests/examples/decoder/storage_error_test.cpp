// SPDX-License-Identifier: Apache-2.0
// What the fast product with codes adds to the codes' own error, on the real model's keys, values
// and queries.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "examples/decoder/llama.h"
#include "kvast/host/openmp.h"
#include "kvast/kvast.h"
#include "tests/examples/decoder/model_file.h"

namespace kvast::decoder {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int kTokens = 197;  // the last token seals nothing: it is dense before and after
#else
constexpr int kTokens = 1029;
#endif
constexpr int kLayers[] = {0, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29};  // 33 heads of 90

/// What a layer was given: [tokens, heads, dim].
struct Given {
  std::vector<float> keys, values, queries;
};

/// The library's full cache, and a record of what came.
class RecordingCache {
 public:
  explicit RecordingCache(const Shape& shape)
      : shape_(shape),
        cache_(shape, {}, {}, pool_, {.executor = openmp(0)}),
        given_(static_cast<std::size_t>(shape.layers)) {}

  Status begin(const PassOptions& options) {
    auto pass = cache_.begin(options);
    if (!pass) return pass.status();
    pass_.emplace(std::move(*pass));
    tokens_ = options.tokens;
    return {};
  }
  void append(int layer, const float* keys, const float* values) {
    const auto size = static_cast<std::size_t>(tokens_ * shape_.heads * shape_.head_dim);
    Given& given = given_[static_cast<std::size_t>(layer)];
    given.keys.assign(keys, keys + size);
    given.values.assign(values, values + size);
    pass_->append(layer, std::span(keys, size), std::span(values, size));
  }
  void attend(int layer, const float* queries, float* output) {
    const auto size = static_cast<std::size_t>(tokens_ * shape_.query_heads * shape_.head_dim);
    given_[static_cast<std::size_t>(layer)].queries.assign(queries, queries + size);
    pass_->attend(layer, std::span(queries, size), std::span(output, size));
  }
  void commit(int layer) { pass_->commit(layer); }
  const Given& given(int layer) const { return given_[static_cast<std::size_t>(layer)]; }

 private:
  using Cache = KVCache<Full, Dense<float>>;
  Shape shape_;
  BlockPool pool_;
  Cache cache_;
  std::optional<Cache::Pass> pass_;
  std::vector<Given> given_;
  int tokens_ = 0;
};

/// Attention of the last token's query heads of one kv head, in double: [group, dim].
std::vector<double> attention(const Shape& shape, const Given& from, const float* queries,
                              int head) {
  const int dim = shape.head_dim;
  std::vector<double> output;
  for (int member = 0; member < shape.group(); ++member) {
    const float* query = queries + (head * shape.group() + member) * dim;
    std::vector<double> weights;
    for (int token = 0; token < kTokens; ++token) {
      const float* key = from.keys.data() + (token * shape.heads + head) * dim;
      double logit = 0;
      for (int at = 0; at < dim; ++at)
        logit += static_cast<double>(query[at]) * static_cast<double>(key[at]);
      weights.push_back(logit / std::sqrt(static_cast<double>(dim)));
    }
    const double most = *std::max_element(weights.begin(), weights.end());
    double total = 0;
    for (double& weight : weights) total += weight = std::exp(weight - most);
    for (int at = 0; at < dim; ++at) {
      double sum = 0;
      for (int token = 0; token < kTokens; ++token) {
        sum += weights[static_cast<std::size_t>(token)] *
               static_cast<double>(
                   from.values[static_cast<std::size_t>((token * shape.heads + head) * dim + at)]);
      }
      output.push_back(sum / total);
    }
  }
  return output;
}

double distance(const std::vector<double>& left, const std::vector<double>& right) {
  double squares = 0;
  double norm = 0;
  for (std::size_t at = 0; at < left.size(); ++at) {
    squares += (left[at] - right[at]) * (left[at] - right[at]);
    norm += right[at] * right[at];
  }
  return std::sqrt(squares / norm);
}

/// Relative errors of one layer's heads: of codes evaluated exactly, and of `attend`.
void add_errors(const Shape& shape, const Given& given, const AnyStorage& storage,
                std::vector<double>& exact_errors, std::vector<double>& ratios) {
  const auto width = static_cast<std::size_t>(shape.heads * shape.head_dim);
  const auto query_width = static_cast<std::size_t>(shape.query_heads * shape.head_dim);
  const std::span<const float> keys(given.keys);
  const std::span<const float> values(given.values);
  const auto last_query = std::span<const float>(given.queries).last(query_width);
  BlockPool pool;
  KVCache<Full, AnyStorage> cache(shape, {}, storage, pool);
  {
    auto pass = cache.begin({.tokens = kTokens - 1, .last_of_prompt = true});
    pass->append(0, keys.first(keys.size() - width), values.first(values.size() - width));
    pass->commit(0);
  }
  std::vector<float> output(query_width);
  auto pass = cache.begin({});
  pass->append(0, keys.last(width), values.last(width));
  pass->attend(0, last_query, std::span(output));
  pass->commit(0);
  Given decoded{std::vector<float>(keys.size()), std::vector<float>(values.size()), {}};
  cache.export_dense(0, decoded.keys.data(), decoded.values.data());
  const auto group_width = static_cast<std::size_t>(shape.group() * shape.head_dim);
  for (int head = 0; head < shape.heads; ++head) {
    const std::vector<double> wanted = attention(shape, given, last_query.data(), head);
    const std::vector<double> coded = attention(shape, decoded, last_query.data(), head);
    const auto first = output.begin() + static_cast<std::ptrdiff_t>(group_width) * head;
    const std::vector<double> got(first, first + static_cast<std::ptrdiff_t>(group_width));
    exact_errors.push_back(distance(coded, wanted));
    ratios.push_back(distance(got, wanted) / exact_errors.back());
  }
}

double median(std::vector<double> numbers) {
  std::nth_element(numbers.begin(), numbers.begin() + std::ssize(numbers) / 2, numbers.end());
  return numbers[numbers.size() / 2];
}

class StorageError : public WithModel {};

TEST_F(StorageError, TheFastProductAddsLittleToTheCodesOwn) {
  Llama model(gguf(), openmp(0));
  Shape shape = model.config().shape();
  RecordingCache recording(shape);
  const auto story = nlohmann::json::parse(
                         read_repository_file("tests/golden/model/tokenizer.json"))["story"]["ids"]
                         .get<std::vector<int>>();
  ASSERT_TRUE(model.forward(recording, std::span(story).first(kTokens), 0,
                            PassOptions{.tokens = kTokens, .last_of_prompt = true}));
  shape.layers = 1;
  const std::pair<const char*, AnyStorage> storages[] = {
      {"int8", Int8{}},
      {"int4", Int4{}},
      {"kivi:bits=8,residual=32", Kivi<8>{.residual = 32}},
      {"kivi:bits=4,residual=32", Kivi<4>{.residual = 32}},
      {"kivi:bits=3,residual=32", Kivi<3>{.residual = 32}},
      {"kivi:bits=2,residual=32", Kivi<2>{.residual = 32}},
      {"kivi:k=4,v=2,residual=32", Kivi<4, 2>{.residual = 32}},
      {"turbo:bits=4", TurboQuant<4>{}},
      {"turbo:bits=3", TurboQuant<3>{}},
      {"turbo:bits=2", TurboQuant<2>{}},
      {"rotated+kivi:bits=2,residual=32", Rotated<Kivi<2>>{{.residual = 32}}},
      {"rotated+int4", Rotated<Int4>{}},
      {"fp8:kind=e4m3", Float8<E4M3>{}},
      {"fp8:kind=e5m2", Float8<E5M2>{}}};
  std::printf("%-32s %12s %14s %14s\n", "storage", "codes' error", "ratio, median", "ratio, worst");
  for (const auto& [name, storage] : storages) {
    std::vector<double> errors;
    std::vector<double> ratios;
    for (const int layer : kLayers)
      add_errors(shape, recording.given(layer), storage, errors, ratios);
    const double worst = *std::max_element(ratios.begin(), ratios.end());
    std::printf("%-32s %12.5f %14.4f %14.4f\n", name, median(errors), median(ratios), worst);
    EXPECT_LE(median(ratios), 1.1) << name;
    EXPECT_LE(worst, 1.5) << name;
  }
}

}  // namespace
}  // namespace kvast::decoder
