// SPDX-License-Identifier: Apache-2.0
// EigenLowRank: attention is that over projected keys and values, for models that rotate and for
// those that do not, on any storage underneath.
#include "kvast/storage/low_rank.h"

#include <gtest/gtest.h>

#include "tests/storage/projected_case.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::Beside;
using test::expect_refused;
using test::projected;
using test::Setting;

template <class Policy, class Inner = Dense<float>>
void expect_equal(const Setting& setting, Policy policy, const std::vector<int>& passes,
                  Inner inner = {}, double most = 1e-5) {
  Beside<Policy, Inner> beside(setting, policy, inner);
  for (std::size_t at = 0; at < passes.size(); ++at)
    beside.run({.tokens = passes[at], .last_of_prompt = at == 0});
  EXPECT_LE(beside.worst, most) << "width " << setting.width << " ranks " << setting.ranks.keys
                                << " and " << setting.ranks.values;
}

std::vector<int> steps(std::vector<int> first, int count) {
  first.insert(first.end(), static_cast<std::size_t>(count), 1);
  return first;
}

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const LayerRanks ranks : {LayerRanks{24, 16}, LayerRanks{8, 8}, LayerRanks{48, 40},
                                 LayerRanks{48, 24}, LayerRanks{32, 40}}) {
    all.push_back({.ranks = ranks});
    all.push_back({.width = 48, .ranks = ranks});
    all.push_back({.pairing = Pairing::interleaved, .width = 20, .scale = 1.25F, .ranks = ranks});
  }
  all.push_back(
      {.shape = {.query_heads = 8, .heads = 8, .head_dim = 128}, .width = 128, .ranks = {72, 40}});
  return all;
}

TEST(EigenLowRank, AttendsOverTheProjections) {
  for (const Setting& setting : settings()) expect_equal(setting, Full{}, {70, 1, 1, 5, 33, 1});
}

TEST(EigenLowRank, PositionsTravelWithTokens) {
  for (const Setting& setting : settings()) {
    expect_equal(setting, H2O{.heavy = 20, .recent = 20}, steps({100, 5}, 90));
    expect_equal(setting, StreamingLLM{.sinks = 4, .recent = 60}, steps({90}, 60));
    expect_equal(setting, SnapKV{.tokens_kept = 50, .window = 8}, steps({150}, 40));
  }
}

template <class Policy, class Inner>
void expect_attends_over_stored(const Setting& setting, Policy policy, Inner inner, double most) {
  Beside<Policy, Inner> beside(setting, policy, inner);
  beside.over_stored = true;
  for (const int tokens : steps({150, 45}, 80))
    beside.run({.tokens = tokens, .last_of_prompt = tokens == 150});
  EXPECT_LE(beside.worst, most) << "width " << setting.width;
}

// A block of codes holds coordinates, and what eviction and repacking move are coordinates. Rows
// that meet codes are rounded: to two bytes for codes of 8 bits, else to one.
TEST(EigenLowRank, OnCodes) {
  for (const int width : {0, 48}) {
    const Setting setting{.width = width};
    expect_equal(setting, Full{}, steps({150}, 40), Kivi<8>{.residual = 0}, 0.04);
    expect_equal(setting, Full{}, steps({150}, 40), Dense<half>{}, 2e-3);
    const H2O evicts{.heavy = 60, .recent = 20};
    expect_attends_over_stored(setting, Full{}, Kivi<8>{.residual = 0}, 1e-3);
    expect_attends_over_stored(setting, evicts, Int8{}, 1e-3);
    expect_attends_over_stored(setting, Full{}, Rotated<Kivi<8>>{{.residual = 0}}, 1e-3);
    expect_attends_over_stored(setting, evicts, Kivi<4>{.residual = 0}, 3e-2);
    expect_attends_over_stored(setting, evicts, TurboQuant<3>{}, 3e-2);
  }
}

TEST(EigenLowRank, AnyStorageUnderneath) {
  expect_equal<Full, AnyStorage>({}, Full{}, {70, 1, 1, 5}, Dense<float>{});
  expect_equal<Full, AnyStorage>({.width = 48}, Full{}, {70, 1, 1, 5}, Dense<float>{});
}

TEST(EigenLowRank, FarPositions) {
  Beside<StreamingLLM, Dense<float>> beside({.width = 48}, {.sinks = 4, .recent = 28}, {});
  beside.run({.tokens = 40});
  const std::vector<int> far{70000, (1 << 30) - 3, (1 << 30) - 2};
  beside.run({.tokens = 3, .positions = far});
  beside.run({});
  EXPECT_LE(beside.worst, 1e-4);
}

/// Keys and values of true rank r0, and any queries: nothing is lost at rank r0.
TEST(EigenLowRank, IsExactAtTheTrueRank) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 48};
  constexpr int kTrueRank = 16;
  for (const bool rotates : {false, true}) {
    auto calibration = std::make_shared<Calibration>(test::random_calibration(shape, rotates));
    test::Random random(8);
    BlockPool pool;
    CacheOptions options;
    if (rotates) {
      options.positions = Positions::unrotated;
      options.rope = Rope::plain(48, 10000.0, Pairing::halves);
    }
    KVCache<Full, EigenLowRank<Dense<float>>> low(
        shape, {}, {{}, calibration, uniform_ranks(*calibration, kTrueRank)}, pool, options);
    KVCache<Full, Dense<float>> whole(shape, {}, {}, pool, options);
    std::vector<float> keys, values;
    for (int token = 0; token < 60; ++token) {
      for (int head = 0; head < 2; ++head) {
        const auto in = [&](const Directions& all, std::vector<float>& to) {
          const int base = all.heads == 1 ? 0 : head;
          std::vector<double> basis;
          for (int row = 0; row < 48; ++row) {
            for (int at = 0; at < kTrueRank; ++at)
              basis.push_back(static_cast<double>(
                  all.vectors[static_cast<std::size_t>((base * 48 + row) * 48 + at)]));
          }
          const auto one = test::vectors_in(random, basis, 48, kTrueRank, 1);
          to.insert(to.end(), one.begin(), one.end());
        };
        in(calibration->layers[0].keys, keys);
        in(calibration->layers[0].values, values);
      }
    }
    const auto queries = random.normals(60 * 6 * 48);
    std::vector<float> one(queries.size());
    std::vector<float> two(queries.size());
    const auto run = [&](auto& cache, std::vector<float>& output) {
      auto pass = cache.begin({.tokens = 60});
      pass->append(0, std::span<const float>(keys), std::span<const float>(values));
      pass->attend(0, std::span<const float>(queries), std::span<float>(output));
      pass->commit(0);
    };
    run(low, one);
    run(whole, two);
    EXPECT_LE(test::relative_error(one.data(), std::vector<double>(two.begin(), two.end())), 1e-5);
  }
}

TEST(EigenLowRank, ExportsWhatTheBasisHolds) {
  for (const int width : {0, 48}) {
    Beside<Full, Dense<float>> beside({.width = width}, {}, {});
    beside.run({.tokens = 50});
    std::vector<float> keys(50 * 2 * 48);
    std::vector<float> values(50 * 2 * 40);
    beside.cache().export_dense(0, std::span(keys), std::span(values));
    for (int row = 0; row < 100; ++row) {
      const LayerDirections& layer = beside.calibration().layers[0];
      const auto at = static_cast<std::size_t>(row);
      EXPECT_LE(
          test::relative_error(keys.data() + at * 48,
                               projected(layer.keys, row % 2, 24, beside.keys.data() + at * 48)),
          1e-5)
          << "unrotated, as they arrived";
      EXPECT_LE(
          test::relative_error(values.data() + at * 40, projected(layer.values, row % 2, 16,
                                                                  beside.values.data() + at * 40)),
          1e-5);
    }
  }
}

TEST(EigenLowRank, BytesFallWithRank) {
  const Shape shape{.query_heads = 2, .heads = 2, .head_dim = 64};
  auto calibration = std::make_shared<Calibration>(test::random_calibration(shape));
  BlockPool pool;
  test::Random random(4);
  const auto numbers = random.normals(1024 * 2 * 64);
  const auto bytes = [&](LayerRanks ranks) {
    KVCache<Full, EigenLowRank<Dense<half>>> cache(shape, {}, {{}, calibration, {ranks}}, pool);
    auto pass = cache.begin({.tokens = 1024});
    pass->append(0, std::span(numbers), std::span(numbers));
    pass->commit(0);
    return cache.bytes_in_use();
  };
  const std::size_t full = bytes({64, 64});
  EXPECT_EQ(full - bytes({32, 64}), 1024U * 2 * 32 * 2);
  EXPECT_EQ(full - bytes({64, 40}), 1024U * 2 * 24 * 2);
  EXPECT_EQ(full - bytes({32, 32}), 1024U * 2 * 64 * 2);
}

TEST(EigenLowRank, FoldedOutputTimesTheFoldedProjectionIsTheOutputProjected) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 48, .value_dim = 40};
  auto calibration = std::make_shared<Calibration>(test::random_calibration(shape));
  for (const int rank : {16, 40}) {
    BlockPool pool;
    using Inner = Rotated<Int8>;
    const EigenLowRank<Inner> lifts{{}, calibration, {{24, rank}}};
    EigenLowRank<Inner> folds = lifts;
    folds.folded = true;
    KVCache<Full, EigenLowRank<Inner>> one(shape, {}, lifts, pool);
    KVCache<Full, EigenLowRank<Inner>> two(shape, {}, folds, pool);
    test::Random random(9);
    const auto keys = random.normals(40 * 2 * 48);
    const auto values = random.normals(40 * 2 * 40);
    const auto queries = random.normals(40 * 6 * 48);
    const auto projection = random.normals(7 * 6 * 40);
    std::vector<float> lifted(40 * 6 * 40);
    std::vector<float> folded(static_cast<std::size_t>(40 * 6 * rank));
    const auto run = [&](auto& cache, std::vector<float>& output) {
      auto pass = cache.begin({.tokens = 40});
      pass->append(0, std::span(keys), std::span(values));
      pass->attend(0, std::span(queries), std::span(output));
      pass->commit(0);
    };
    run(one, lifted);
    run(two, folded);
    const auto small = fold_output(projection, 7, shape, two.value_basis(0));
    ASSERT_EQ(small.size(), static_cast<std::size_t>(7 * 6 * rank));
    const auto product = [](const std::vector<float>& rows, const std::vector<float>& matrix,
                            std::size_t width) {
      std::vector<double> sums;
      for (std::size_t row = 0; row < rows.size(); row += width) {
        for (std::size_t to = 0; to < matrix.size(); to += width) {
          double sum = 0.0;
          for (std::size_t at = 0; at < width; ++at)
            sum += static_cast<double>(rows[row + at]) * static_cast<double>(matrix[to + at]);
          sums.push_back(sum);
        }
      }
      return sums;
    };
    const auto wanted = product(lifted, projection, 6 * 40);
    const auto got = product(folded, small, static_cast<std::size_t>(6 * rank));
    EXPECT_LE(test::relative_error(got.data(), wanted), 1e-5);
    expect_refused([&] { (void)fold_output(projection, 6, shape, two.value_basis(0)); },
                   {"fold_output", "1680", "1440"});
  }
}

TEST(EigenLowRank, ImpossibleSettingsAreRefusedByName) {
  const Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 32};
  auto calibration = std::make_shared<Calibration>(test::random_calibration(shape));
  BlockPool pool;
  using Storage = EigenLowRank<Dense<half>>;
  using Cache = KVCache<Full, Storage>;
  const auto make = [&](const Shape& model, Storage storage, const CacheOptions& options = {}) {
    Cache(model, {}, std::move(storage), pool, options);
  };
  expect_refused([&] { make(shape, {}); }, {"EigenLowRank.calibration", "null"});
  expect_refused([&] { make(shape, {{}, calibration, {{32, 32}}}); }, {"1 layers", "2"});
  for (const int rank : {0, 12, 40, -8}) {
    expect_refused(
        [&] {
          make(shape, {{}, calibration, {{32, 32}, {32, rank}}});
        },
        {"ranks[1].values is " + std::to_string(rank), "[8, 32]"});
    expect_refused(
        [&] {
          make(shape, {{}, calibration, {{rank, 32}, {32, 32}}});
        },
        {"ranks[0].keys is " + std::to_string(rank)});
  }
  Shape other = shape;
  other.head_dim = 64;
  const Storage good{{}, calibration, uniform_ranks(*calibration, 16)};
  expect_refused([&] { make(other, good); },
                 {"4 query heads on 2 of 32 and 32", "4 query heads on 2 of 64 and 64"});
  // the same through a storage that is chosen at run time
  expect_refused([&] { KVCache<Full, AnyStorage>(other, {}, AnyStorage(good), pool); },
                 {"4 query heads on 2 of 32 and 32"});
  const Rope rope = Rope::plain(32, 1e4, Pairing::halves);
  expect_refused([&] { make(shape, good, {.positions = Positions::compacted, .rope = rope}); },
                 {"compacted", "basis"});
  auto unrotated = std::make_shared<Calibration>(test::random_calibration(shape, true));
  const Storage before{{}, unrotated, uniform_ranks(*unrotated, 16)};
  expect_refused([&] { make(shape, before); }, {"before rotation", "Positions::unrotated"});
  expect_refused([&] { make(shape, before, {.positions = Positions::unrotated}); },
                 {"options.rope"});
  make(shape, before, {.positions = Positions::unrotated, .rope = rope});
  expect_refused(
      [&] {
        KVCache<Full, EigenLowRank<External>>(
            shape, {}, {{}, calibration, uniform_ranks(*calibration, 16)}, pool);
      },
      {"External", "basis"});
}

/// A calibration is a plain value: what an engine made itself may contradict itself.
TEST(EigenLowRank, CalibrationsThatContradictThemselvesAreRefused) {
  const Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 32};
  BlockPool pool;
  const auto expect = [&](const auto& spoil, const std::vector<std::string>& parts) {
    auto made = std::make_shared<Calibration>(test::random_calibration(shape));
    spoil(*made);
    const Ranks ranks(made->layers.size(), LayerRanks{16, 16});
    expect_refused(
        [&] {
          KVCache<Full, EigenLowRank<Dense<half>>>(shape, {}, {{}, made, ranks}, pool);
        },
        parts);
    expect_refused([&] { (void)uniform_ranks(*made, 16); }, parts);
    expect_refused([&] { (void)ranks_by_energy(*made, 0.9); }, parts);
  };
  expect([](Calibration& made) { made.layers.clear(); }, {"0 layers", "2 shapes"});
  expect([](Calibration& made) { made.shapes.pop_back(); }, {"2 layers", "1 shapes"});
  expect([](Calibration& made) { made.layers[1].keys.heads = 3; },
         {"layers[1].keys.heads is 3", "must be 1 or 2"});
  expect([](Calibration& made) { made.layers[1].values.dim = 64; },
         {"layers[1].values.dim is 64", "must be 32"});
  expect([](Calibration& made) { made.layers[0].keys.vectors.resize(100); },
         {"layers[0].keys.vectors has 100 numbers", "2048"});
  expect([](Calibration& made) { made.layers[0].keys.energies.push_back(1.0); },
         {"layers[0].keys.energies has 65 numbers", "64"});
  expect([](Calibration& made) { made.layers[0].keys.energies[3] = -1.0; },
         {"layers[0].keys.energies[3] is -1"});
  for (const float number : {NAN, INFINITY, 1e30F, 2.0F}) {
    expect([&](Calibration& made) { made.layers[1].values.vectors[1025] = number; },
           {"layers[1].values", "direction 33", "length 1"});
  }
}

/// A coordinate may be larger than every feature: f16 must hold it.
TEST(EigenLowRank, NumbersThatBecomeTooLargeAreRefused) {
  const Shape shape{.head_dim = 64};
  auto calibration = std::make_shared<Calibration>(test::random_calibration(shape));
  BlockPool pool;
  KVCache<Full, EigenLowRank<Dense<half>>> cache(shape, {}, {{}, calibration, {{32, 32}}}, pool);
  std::vector<float> keys(64, 1.0F);
  const std::vector<float> values(64, 1.0F);
  for (int dim = 0; dim < 64; ++dim) {
    const auto at = static_cast<std::size_t>(dim);
    keys[at] = std::copysign(60000.0F, calibration->layers[0].keys.vectors[at * 64]);
  }
  auto pass = cache.begin({.tokens = 1});
  expect_refused([&] { pass->append(0, std::span<const float>(keys), std::span(values)); },
                 {"append: keys", "60000"});
  for (float& key : keys) key /= 16.0F;
  pass->append(0, std::span<const float>(keys), std::span(values));
  pass->commit(0);
  std::vector<float> back(64);
  cache.export_dense(0, std::span(back), OutputView());
  for (const float number : back) EXPECT_TRUE(std::isfinite(number));
}

}  // namespace
}  // namespace kvast
