// SPDX-License-Identifier: Apache-2.0
// Misuse at every public entry: a sentence with the argument and the values, and a cache as it was.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16, .value_dim = 24};

/// A cache in use, and a twin that is never misused: both must go on alike.
template <class Storage>
class BadInput : public testing::Test {
 protected:
  using Cache = KVCache<H2O, AnyStorage>;

  BadInput()
      : cache_(kShape, {.heavy = 30, .recent = 30}, storage(), pool_),
        twin_(kShape, {.heavy = 30, .recent = 30}, storage(), twin_pool_) {
    expect_same_step(70);
  }
  static AnyStorage storage() {
    if constexpr (std::is_same_v<Storage, Kivi<4>>) {
      return Kivi<4>{.residual = 16};
    } else {
      return Storage{};
    }
  }
  static std::size_t size(int tokens, int heads, int dim) {
    return static_cast<std::size_t>(tokens * heads * dim);
  }
  std::vector<float> step(Cache& cache, int tokens) {
    test::Random random(static_cast<std::uint64_t>(cache.length()));
    std::vector<float> all;
    auto pass = cache.begin({.tokens = tokens});
    for (int layer = 0; layer < 2; ++layer) {
      const auto keys = random.normals(size(tokens, 2, 16));
      const auto values = random.normals(size(tokens, 2, 24));
      const auto queries = random.normals(size(tokens, 4, 16));
      std::vector<float> output(size(tokens, 4, 24));
      pass->append(layer, std::span(keys), std::span(values));
      pass->attend(layer, std::span(queries), std::span(output));
      pass->commit(layer);
      all.insert(all.end(), output.begin(), output.end());
    }
    return all;
  }
  void expect_same_step(int tokens) {
    ASSERT_EQ(step(cache_, tokens), step(twin_, tokens));
    ASSERT_EQ(cache_.bytes_in_use(), twin_.bytes_in_use());
    ASSERT_EQ(cache_.length(), twin_.length());
    ASSERT_EQ(cache_.kept(1, 1), twin_.kept(1, 1));
  }

  BlockPool pool_;
  BlockPool twin_pool_;
  Cache cache_;
  Cache twin_;
  std::vector<float> keys_ = std::vector<float>(size(3, 2, 16), 0.5F);
  std::vector<float> values_ = std::vector<float>(size(3, 2, 24), 0.5F);
  std::vector<float> queries_ = std::vector<float>(size(3, 4, 16), 0.5F);
  std::vector<float> output_ = std::vector<float>(size(3, 4, 24), 0.5F);
};
using Storages = testing::Types<Dense<float>, Dense<half>, Kivi<4>>;
TYPED_TEST_SUITE(BadInput, Storages);

TYPED_TEST(BadInput, Begin) {
  auto& cache = this->cache_;
  const auto begin = [&](PassOptions options) {
    return [&cache, options] { (void)cache.begin(options); };
  };
  for (const int tokens : {0, -1, (1 << 20) + 1, 2147483647, -2147483647 - 1})
    expect_refused(begin({.tokens = tokens}), {"begin: tokens is " + std::to_string(tokens)});
  expect_refused(begin({.last_of_prompt = true, .more_of_prompt = true}),
                 {"last_of_prompt", "more_of_prompt", "exclude"});
  const std::vector<int> three{70, 71, 72};
  expect_refused(begin({.tokens = 2, .positions = three}), {"positions has 3", "tokens is 2"});
  for (const std::vector<int>& wrong : std::vector<std::vector<int>>{
           {69, 70, 71}, {70, 70, 71}, {72, 71, 73}, {-1, 70, 71}, {70, 71, 1 << 30}}) {
    expect_refused(begin({.tokens = 3, .positions = wrong}), {"begin: position "});
  }
  const std::vector<TokenKind> kinds(2);
  expect_refused(begin({.tokens = 3, .kinds = kinds}), {"kinds has 2", "tokens is 3"});
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, AppendSizes) {
  const float* null = nullptr;
  {
    auto pass = this->cache_.begin({.tokens = 3});
    const View keys(std::span<const float>(this->keys_));
    const View values(std::span<const float>(this->values_));
    expect_refused([&] { pass->append(0, null, values); }, {"append: keys must not be null"});
    expect_refused([&] { pass->append(0, keys, null); }, {"append: values must not be null"});
    const std::span<const float> fewer = std::span(this->keys_).first(95);
    expect_refused([&] { pass->append(0, fewer, values); },
                   {"append: keys has 95", "[3, 2, 16] needs 96"});
    const std::span<const float> none;
    expect_refused([&] { pass->append(0, keys, none); }, {"append: values"});
    expect_refused([&] { pass->append(0, keys, std::span<const float>(this->values_).first(1)); },
                   {"append: values has 1 ", "needs 144"});
    expect_refused([&] { pass->append(0, View(this->keys_.data(), -32, 16), values); },
                   {"append: keys", "-32", "[0, 2^40]"});
    for (const std::int64_t stride :
         {std::int64_t{1} << 61, std::int64_t{1} << 62, std::numeric_limits<std::int64_t>::max()}) {
      View huge = keys;
      huge.token_stride = stride;
      expect_refused([&] { pass->append(0, huge, values); }, {"append: keys"});
      huge = keys;
      huge.head_stride = stride;
      expect_refused([&] { pass->append(0, huge, values); }, {"append: keys"});
    }
    expect_refused([&] { pass->append(2, keys, values); }, {"layer is 2", "[0, 2)"});
    expect_refused([&] { pass->append(-1, keys, values); }, {"layer is -1"});
  }
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, NumbersThatCannotBeStored) {
  std::vector<float> numbers{NAN, -NAN, INFINITY, -INFINITY};
  if (!std::is_same_v<TypeParam, Dense<float>>) {
    for (const float number : {65505.0F, -70000.0F, 3e38F}) numbers.push_back(number);
  }
  for (const float number : numbers) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{50}, this->keys_.size() - 1}) {
      auto pass = this->cache_.begin({.tokens = 3});
      auto keys = this->keys_;
      auto values = this->values_;
      keys[at] = number;
      const std::string token = "token " + std::to_string(at / 32);
      const std::string head = "head " + std::to_string(at / 16 % 2);
      expect_refused([&] { pass->append(0, keys.data(), values.data()); },
                     {"append: keys of " + token, head, "finite"});
      values[at] = number;
      expect_refused([&] { pass->append(0, this->keys_.data(), values.data()); },
                     {"append: values of token " + std::to_string(at / 48)});
    }
  }
  const std::vector<half> infinite(96, half{0x7C00});
  {
    auto pass = this->cache_.begin({.tokens = 3});
    expect_refused([&] { pass->append(0, infinite.data(), this->values_.data()); },
                   {"append: keys of token 0"});
    // the largest that can be stored is not refused
    const std::vector<float> large(96, 65504.0F);
    pass->append(0, large.data(), this->values_.data());
  }
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, AttendArguments) {
  {
    auto pass = this->cache_.begin({.tokens = 3});
    pass->append(0, this->keys_.data(), this->values_.data());
    const View queries(std::span<const float>(this->queries_));
    const OutputView output{std::span<float>(this->output_)};
    const auto with = [&](AttendOptions options) {
      return [&pass, queries, output, options] { pass->attend(0, queries, output, options); };
    };
    float* null = nullptr;
    expect_refused([&] { pass->attend(0, null, output); }, {"attend: queries must not be null"});
    expect_refused([&] { pass->attend(0, queries, null); }, {"attend: output must not be null"});
    expect_refused(
        [&] { pass->attend(0, std::span<const float>(this->queries_).first(191), output); },
        {"attend: queries has 191", "needs 192"});
    expect_refused([&] { pass->attend(0, queries, std::span(this->output_).first(287)); },
                   {"attend: output has 287", "[3, 4, 24] needs 288"});
    // rounded to bytes, an infinite number would become a plausible one
    for (const float number : {INFINITY, -INFINITY, NAN}) {
      auto bad = this->queries_;
      bad[70] = number;
      expect_refused([&] { pass->attend(0, std::span<const float>(bad), output); },
                     {"attend: queries of token 1, head 0", "finite"});
    }
    for (const float scale : {-1.0F, INFINITY, NAN})
      expect_refused(with({.scale = scale}), {"options.scale is "});
    for (const float cap : {-1.0F, INFINITY, NAN})
      expect_refused(with({.softcap = cap}), {"options.softcap is "});
    expect_refused(with({.window = -1}), {"options.window is -1"});
    const std::vector<float> five(5);
    expect_refused(with({.sinks = five}), {"options.sinks has 5", "query_heads = 4"});
    expect_refused(with({.bias = {.data = five.data(), .positions = 5}}),
                   {"options.bias covers 5 positions", "must cover 73"});
    std::vector<float> eleven(11);
    expect_refused(with({.log_sum_exp = eleven}), {"options.log_sum_exp has 11", "= 12"});
  }
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, OrderOfCalls) {
  {
    auto pass = this->cache_.begin({.tokens = 3});
    const auto append = [&] { pass->append(0, this->keys_.data(), this->values_.data()); };
    const auto attend = [&] { pass->attend(0, this->queries_.data(), this->output_.data()); };
    expect_refused(attend, {"attend: out of order for layer 0", "last call was nothing", "append"});
    expect_refused([&] { pass->commit(0); }, {"commit: out of order", "nothing"});
    append();
    expect_refused(append, {"append: out of order for layer 0", "last call was append"});
    expect_refused([&] { pass->commit(0); },
                   {"commit: out of order", "last call was append", "attend or observe"});
    attend();
    expect_refused(attend, {"attend: out of order", "last call was attend"});
    expect_refused(append, {"append: out of order"});
    expect_refused([&] { pass->commit(1); }, {"commit: out of order for layer 1"});
    expect_refused([&] { pass->commit(2); }, {"layer is 2"});
  }
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, ObserveArguments) {
  {
    auto pass = this->cache_.begin({.tokens = 3});
    pass->append(0, this->keys_.data(), this->values_.data());
    const std::vector<float> weights(10000);
    expect_refused([&] { pass->observe(0, {}); }, {"weights must not be null"});
    expect_refused(
        [&] {
          pass->observe(0, {weights.data(), 0, 70});
        },
        {"token_stride", "3 tokens"});
    expect_refused(
        [&] {
          pass->observe(0, {weights.data(), 280, 0});
        },
        {"head_stride", "4 query heads"});
  }
  this->expect_same_step(1);
}

TYPED_TEST(BadInput, Questions) {
  auto& cache = this->cache_;
  expect_refused([&] { (void)cache.kept(2, 0); }, {"layer is 2"});
  expect_refused([&] { (void)cache.kept(0, 2); }, {"head is 2", "[0, 2)"});
  expect_refused([&] { (void)cache.tokens(-1, 0); }, {"layer is -1"});
  expect_refused([&] { (void)cache.tokens(0, -1); }, {"head is -1"});
  expect_refused([&] { (void)cache.slots(0, 5); }, {"head is 5"});
  expect_refused([&] { (void)cache.moves(9, 0); }, {"layer is 9"});
  expect_refused([&] { (void)cache.shape(9); }, {"layer is 9"});
  expect_refused([&] { cache.export_dense(4, {}, {}); }, {"layer is 4"});
  std::vector<float> small(60 * 32 - 1);
  expect_refused([&] { cache.export_dense(0, std::span(small), {}); },
                 {"export_dense: keys has 1919", "[60, 2, 16] needs 1920"});
  expect_refused([&] { cache.export_dense(0, {}, std::span(small)); }, {"export_dense: values"});
  this->expect_same_step(1);
}

}  // namespace
}  // namespace kvast
