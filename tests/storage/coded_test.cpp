// SPDX-License-Identifier: Apache-2.0
// Every storage with codes: attention is that over what it stores, tokens and layers that are to
// stay f16 do, rotations come back, and bytes are what the formats say.
#include <gtest/gtest.h>

#include "tests/support/attend_case.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

template <class Storage>
class Coded : public testing::Test {};
using Storages =
    testing::Types<Kivi<2>, Kivi<3>, Kivi<4>, Kivi<8>, Kivi<4, 2>, Kivi<8, 4>, Int8, Int4,
                   Float8<E4M3>, Float8<E5M2>, TurboQuant<2>, TurboQuant<3>, TurboQuant<4>,
                   TurboQuant<4, 2>, Rotated<Kivi<2>>, Rotated<Int4>, Dense<BF16>>;
TYPED_TEST_SUITE(Coded, Storages);

/// A storage that seals as soon as it can.
template <class Storage>
Storage eager() {
  Storage storage{};
  if constexpr (requires { storage.residual; }) storage.residual = 0;
  return storage;
}

/// What a cache stores of one layer, as a reference that attends over it.
template <class Cache>
test::ReferenceLayer stored(Cache& cache, const Shape& shape) {
  test::ReferenceLayer reference(shape.query_heads, shape.heads, shape.head_dim, shape.values());
  const auto tokens = static_cast<std::size_t>(cache.tokens(0, 0));
  const auto heads = static_cast<std::size_t>(shape.heads);
  std::vector<float> keys(tokens * heads * static_cast<std::size_t>(shape.head_dim));
  std::vector<float> values(tokens * heads * static_cast<std::size_t>(shape.values()));
  cache.export_dense(0, std::span(keys), std::span(values));
  reference.append(cache.kept(0, 0), keys.data(), values.data());
  return reference;
}

void expect_attention_over_what_is_stored(const AnyStorage& storage) {
  // rows that meet codes are rounded: to one byte, but to two for codes of 8 bits
  const StoragePlan plan = storage.plan<Simd>(0);
  const auto fine = [](const Codec* codec) {
    return codec == nullptr || codec->dense || codec->name == std::string("int8");
  };
  const double rounding = fine(plan.coded_keys) && fine(plan.coded_values) ? 1e-3 : 3e-2;
  for (const Shape shape :
       {Shape{.query_heads = 6, .heads = 2, .head_dim = 64},
        Shape{.query_heads = 1, .heads = 1, .head_dim = 72, .value_dim = 104},
        Shape{.query_heads = 8, .heads = 1, .head_dim = 128, .value_dim = 40}}) {
    BlockPool pool;
    KVCache<Full, AnyStorage> cache(shape, {}, storage, pool);
    test::Random random(31);
    const auto numbers = [&](int tokens, int heads, int dim) {
      return random.normals(static_cast<std::size_t>(tokens * heads * dim));
    };
    for (const int tokens : {150, 1, 45, 7, 1}) {
      const auto keys = numbers(tokens, shape.heads, shape.head_dim);
      const auto values = numbers(tokens, shape.heads, shape.values());
      const auto queries = numbers(tokens, shape.query_heads, shape.head_dim);
      std::vector<float> output(
          static_cast<std::size_t>(tokens * shape.query_heads * shape.values()));
      auto pass = cache.begin({.tokens = tokens});
      pass->append(0, std::span(keys), std::span(values));
      pass->attend(0, std::span(queries), std::span(output));
      test::ReferenceLayer reference = stored(cache, shape);
      const int last = cache.length() + tokens - 1;
      for (int head = 0; head < shape.query_heads; ++head) {
        const auto row = static_cast<std::size_t>((tokens - 1) * shape.query_heads + head);
        const auto sight = reference.attend(
            head, last, queries.data() + row * static_cast<std::size_t>(shape.head_dim));
        EXPECT_LE(test::relative_error(
                      output.data() + row * static_cast<std::size_t>(shape.values()), sight.output),
                  rounding);
      }
      pass->commit(0);
    }
  }
}

TYPED_TEST(Coded, AttendsOverWhatItStores) {
  expect_attention_over_what_is_stored(eager<TypeParam>());
}

void expect_budget_where_tokens_leave_everywhere(const AnyStorage& storage) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 32};
  test::AnyDuel<H2O> duel(shape, {.heavy = 100, .recent = 28, .by_lifetime = true}, storage);
  duel.run({.tokens = 200, .last_of_prompt = true}, {}, {}, 0);
  for (int step = 0; step < 300; ++step) {
    duel.run({}, {}, {}, 0);
    ASSERT_EQ(duel.cache().tokens(0, 0), 128);
    for (const float number : duel.output) ASSERT_TRUE(std::isfinite(number));
  }
  const Stats stats = duel.cache().stats();
  EXPECT_LE(stats.repacked, stats.appended);
}

TYPED_TEST(Coded, HoldsItsBudgetWhereTokensLeaveEverywhere) {
  expect_budget_where_tokens_leave_everywhere(eager<TypeParam>());
}

template <class Storage>
void expect_first_tokens_stay(Storage storage) {
  storage.keep.tokens = 5;
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 32};
  test::Duel<Full, Storage> duel(shape, {}, storage);
  duel.rounds_to_half = true;
  duel.run({.tokens = 100, .last_of_prompt = true}, {}, {}, 0);
  const std::vector<float> first(duel.keys.begin(), duel.keys.begin() + 5 * 32);
  for (int step = 0; step < 70; ++step) duel.run({}, {}, {}, 0);
  std::vector<float> keys(170 * 32);
  std::vector<float> values(170 * 32);
  duel.cache().export_dense(0, std::span(keys), std::span(values));
  for (std::size_t at = 0; at < first.size(); ++at) ASSERT_EQ(keys[at], first[at]) << at;
  EXPECT_EQ(duel.cache().stats().sealed, 160) << "32 * floor((170 - 5) / 32)";
}

TEST(KeepDense, TheFirstTokensStayF16) {
  expect_first_tokens_stay(Kivi<2>{.residual = 0});
  expect_first_tokens_stay(Int8{});
  expect_first_tokens_stay(Float8<E4M3>{});
}

TEST(KeepDense, ChosenLayersStayF16) {
  BlockPool pool;
  const Shape shape{.layers = 3, .head_dim = 32};
  KVCache<Full, Kivi<2>> cache(shape, {}, {.residual = 0, .keep = {.layers = LayerSet{}.add(1)}},
                               pool);
  test::Random random(33);
  auto numbers = random.normals(64 * 32);
  auto pass = cache.begin({.tokens = 64, .last_of_prompt = true});
  for (int layer = 0; layer < 3; ++layer) {
    pass->append(layer, numbers.data(), numbers.data());
    pass->commit(layer);
  }
  EXPECT_EQ(cache.stats().sealed, 2 * 64);
  std::vector<float> keys(64 * 32);
  cache.export_dense(1, std::span(keys), OutputView());
  for (std::size_t at = 0; at < keys.size(); ++at)
    ASSERT_NEAR(keys[at], numbers[at], std::abs(numbers[at]) * 0x1p-10F);
}

TEST(Rotated, SpreadsOutliersAndTurnsBack) {
  const Rotation rotation = Rotation::of(96, 7);
  EXPECT_EQ(rotation.width, 32);
  test::Random random(34);
  const auto one = random.normals(96);
  const auto two = random.normals(96);
  std::vector<float> turned_one = one;
  std::vector<float> turned_two = two;
  rotation.apply(turned_one.data());
  rotation.apply(turned_two.data());
  double before = 0.0;
  double after = 0.0;
  for (std::size_t at = 0; at < 96; ++at) {
    before += static_cast<double>(one[at]) * static_cast<double>(two[at]);
    after += static_cast<double>(turned_one[at]) * static_cast<double>(turned_two[at]);
  }
  EXPECT_NEAR(before, after, 1e-4);
  rotation.undo(turned_one.data());
  for (std::size_t at = 0; at < 96; ++at) EXPECT_NEAR(turned_one[at], one[at], 1e-6F);
  std::vector<float> spike(96, 0.0F);
  spike[40] = 8.0F;
  rotation.apply(spike.data());
  for (std::size_t at = 32; at < 64; ++at)
    EXPECT_NEAR(std::abs(spike[at]), 8.0F / std::sqrt(32.0F), 1e-5F);
}

// Walsh-Hadamard of [1 2 3 4] in Sylvester order, normalised, is [5 -1 -2 0].
TEST(Rotated, IsWalshHadamardsBehindTheSigns) {
  Rotation plain{.dim = 4, .width = 4};
  float numbers[4] = {1.0F, 2.0F, 3.0F, 4.0F};
  plain.apply(numbers);
  EXPECT_EQ(numbers[0], 5.0F);
  EXPECT_EQ(numbers[1], -1.0F);
  EXPECT_EQ(numbers[2], -2.0F);
  EXPECT_EQ(numbers[3], 0.0F);
}

/// Relative error of the keys of a full cache, of which two channels are twenty times as large.
template <class Storage>
double error_beside_outliers(Storage storage) {
  const Shape shape{.head_dim = 128};
  BlockPool pool;
  KVCache<Full, AnyStorage> cache(shape, {}, storage, pool);
  test::Random random(35);
  auto values = random.normals(320 * 128);
  for (std::size_t token = 0; token < 320; ++token) {
    values[token * 128 + 17] *= 20.0F;
    values[token * 128 + 90] *= 20.0F;
  }
  auto pass = cache.begin({.tokens = 320, .last_of_prompt = true});
  pass->append(0, values.data(), values.data());
  pass->commit(0);
  std::vector<float> back(values.size());
  cache.export_dense(0, OutputView(), std::span(back));
  double wrong = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < back.size(); ++at) {
    if (at % 128 == 17 || at % 128 == 90) continue;
    wrong += std::pow(static_cast<double>(back[at] - values[at]), 2);
    norm += std::pow(static_cast<double>(values[at]), 2);
  }
  return wrong / norm;
}

// Values are quantised per token: there two loud channels drown the others, unless rotated.
TEST(Rotated, SavesTheNeighboursOfOutliersInValues) {
  const double plain = error_beside_outliers(Int4{});
  const double rotated = error_beside_outliers(Rotated<Int4>{});
  EXPECT_GT(plain, 0.05);
  EXPECT_LT(rotated, plain / 2.0);
}

TEST(CodedBytes, AreWhatTheFormatsSay) {
  const Shape shape{.head_dim = 128};
  const auto payload = [&](auto storage) {
    BlockPool pool;
    KVCache<Full, AnyStorage> cache(shape, {}, storage, pool);
    test::Random random(36);
    const auto numbers = random.normals(4096 * 128);
    auto pass = cache.begin({.tokens = 4096, .last_of_prompt = true});
    pass->append(0, std::span(numbers), std::span(numbers));
    pass->commit(0);
    return static_cast<double>(cache.bytes_in_use());
  };
  const double f16 = payload(Dense<half>{});
  // 446,464 bytes of codes and residual for 2,097,152 of f16, and 160 bytes beside each block
  EXPECT_GE(f16 / payload(Kivi<2>{}), 4.5);
  EXPECT_GE(f16 / payload(Kivi<4>{}), 2.9);
  EXPECT_GE(f16 / payload(Int8{}), 1.8);
  EXPECT_GE(f16 / payload(TurboQuant<3>{}), 4.3);
  EXPECT_GE(f16 / payload(Float8<E4M3>{}), 1.9);
}

/// Of 4,096 tokens of one head: `coded` and `dense` bytes of keys and values per block.
std::size_t bytes_by_formula(int head_dim, int residual, std::size_t coded) {
  const auto blocks = static_cast<std::size_t>((4096 - residual) / 32);
  const std::size_t waiting = 128 - blocks;
  const auto dense = static_cast<std::size_t>(2 * head_dim * 32 * 2);
  constexpr std::size_t kRecord = 160;
  constexpr std::size_t kPointers = 128 * 8;           // of a list that has had up to 128 blocks
  const std::size_t aligned = (coded + 63) / 64 * 64;  // blocks begin on cache lines
  return blocks * (aligned + kRecord) + waiting * (dense + kRecord) + kPointers +
         (waiting > 0 ? kPointers : 0);
}
template <class Storage>
void expect_formula(Storage storage, int residual, std::size_t coded, int head_dim = 128) {
  BlockPool pool;
  KVCache<Full, AnyStorage> cache(Shape{.head_dim = head_dim}, {}, storage, pool);
  test::Random random(37);
  const auto numbers = random.normals(4096 * static_cast<std::size_t>(head_dim));
  auto pass = cache.begin({.tokens = 4096, .last_of_prompt = true});
  pass->append(0, std::span(numbers), std::span(numbers));
  pass->commit(0);
  EXPECT_EQ(cache.bytes_in_use(), bytes_by_formula(head_dim, residual, coded));
  EXPECT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
}

TEST(CodedBytes, AreTheFormulasAndARecordPerBlock) {
  // per group of 32 numbers: codes, scale, minimum
  expect_formula(Kivi<2>{}, 128, 2 * 128 * (8 + 2 + 2));
  expect_formula(Kivi<3>{}, 128, 2 * 128 * (12 + 2 + 2));
  expect_formula(Kivi<4>{}, 128, 2 * 128 * (16 + 2 + 2));
  expect_formula(Kivi<4, 2>{}, 128, 128 * (16 + 4) + 128 * (8 + 4));
  expect_formula(Int8{}, 0, 2 * 128 * (32 + 2));
  expect_formula(Int4{}, 0, 2 * 128 * (16 + 2 + 2));
  expect_formula(Float8<E4M3>{}, 0, 2 * 128 * 32);
  expect_formula(TurboQuant<2>{}, 0, 2 * 128 * (8 + 2));
  expect_formula(TurboQuant<3>{}, 0, 2 * 128 * (12 + 2));
  expect_formula(TurboQuant<4>{}, 0, 2 * 128 * (16 + 2));
  // a group of values that is narrower is stored as 32: 40 values are two groups
  expect_formula(Int4{}, 0, (40 + 2 * 32) * (16 + 2 + 2), 40);
}

TEST(CodedSettings, ImpossibleOnesAreRefusedByName) {
  BlockPool pool;
  const Shape shape{.head_dim = 32};
  test::expect_refused([&] { KVCache<Full, AnyStorage>(shape, {}, Kivi<2>{.residual = -1}, pool); },
                       {"Kivi.residual", "-1"});
  test::expect_refused(
      [&] { KVCache<Full, AnyStorage>(shape, {}, Int8{.keep = {.tokens = -2}}, pool); },
      {"Int8.keep.tokens", "-2"});
  const KeepDense third{.layers = LayerSet{}.add(2)};
  const auto beyond = [&](AnyStorage storage, std::initializer_list<std::string> words) {
    const Shape two{.layers = 2, .head_dim = 32};
    test::expect_refused([&] { KVCache<Full, AnyStorage>(two, {}, storage, pool); }, words);
  };
  beyond(Kivi<4>{.keep = third}, {"Kivi.keep.layers", "layer 2", "2 layers"});
  beyond(Int4{.keep = third}, {"Int4.keep.layers", "layer 2", "2 layers"});
  beyond(Float8<E5M2>{.keep = third}, {"Float8.keep.layers", "layer 2", "2 layers"});
  beyond(TurboQuant<2>{.keep = third}, {"TurboQuant.keep.layers", "layer 2", "2 layers"});
  beyond(Rotated<Int8>{Int8{.keep = third}}, {"Int8.keep.layers", "layer 2", "2 layers"});
  const Rope rope = Rope::plain(32, 1e4, Pairing::halves);
  const CacheOptions compacted{.positions = Positions::compacted, .rope = rope};
  test::expect_refused(
      [&] { KVCache<Full, AnyStorage>(shape, {}, Int8{.keep = {.tokens = 2}}, pool, compacted); },
      {"compacted", "keep.tokens", "2"});
  test::expect_refused(
      [&] { KVCache<Full, AnyStorage>(shape, {}, TurboQuant<3>{}, pool, compacted); },
      {"compacted", "rotated"});
}

}  // namespace
}  // namespace kvast
