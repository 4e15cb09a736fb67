// SPDX-License-Identifier: Apache-2.0
// KVCache<Policy, OnGpu<S>>: random histories of batches against a naive model, bit for bit, in
// every order of threads.
#include <gtest/gtest.h>

#include <string>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/backend.h"
#include "tests/simt/cache_model.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::DeviceVector;
using test::Random;
using test::TestDevice;

bool keeps(const Full&, int, int) { return true; }
bool keeps(const StreamingLLM& policy, int position, int newest) {
  return position < policy.sinks || newest - position < policy.recent;
}

/// A cache and its model, fed with the same random passes.
template <class Policy, class S>
class Twins {
 public:
  using Formats = gpu::DeviceFormats<S>;
  using Cache = KVCache<Policy, OnGpu<S, TestDevice>>;
  using Head =
      test::ModelHead<typename Formats::Waiting, typename Formats::Keys, typename Formats::Values>;

  Twins(const std::vector<Shape>& shapes, Policy policy, S storage, int sequences,
        std::uint64_t seed)
      : shapes_(shapes),
        policy_(policy),
        storage_(storage),
        random_(seed),
        cache_(shapes, policy, {storage}, pool_, {.sequences = sequences}) {
    heads_.resize(static_cast<std::size_t>(sequences));
    for (auto& layers : heads_) {
      for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
        layers.emplace_back(static_cast<std::size_t>(shapes[layer].heads));
        const gpu::LayerFormat format = Formats::of(storage, static_cast<int>(layer));
        for (Head& head : layers.back()) {
          if (!format.rotates) continue;
          head.key_rotation = Rotation::of(shapes[layer].head_dim, format.seed);
          head.value_rotation = Rotation::of(shapes[layer].values(), format.seed + 1);
        }
      }
    }
    lengths_.resize(heads_.size());
  }

  void pass(const std::vector<int>& counts, bool more_of_prompt = false, bool at_once = false) {
    int rows = 0;
    for (const int count : counts) rows += count;
    auto pass = cache_.begin({.counts = counts, .more_of_prompt = more_of_prompt});
    ASSERT_TRUE(pass) << pass.status().message();
    for (std::size_t layer = 0; layer < shapes_.size(); ++layer) {
      const Shape& shape = shapes_[layer];
      const auto keys = test::on_device(random_.normals(size(rows, shape.heads, shape.head_dim)));
      const auto values = test::on_device(random_.normals(size(rows, shape.heads, shape.values())));
      append(layer, counts, keys.data(), values.data());
      const int at = static_cast<int>(layer);
      ASSERT_TRUE(pass->append(at, keys.data(), values.data()));
      if (!at_once) {
        ASSERT_TRUE(pass->commit(at));
      }
      test::wait();
    }
    if (at_once) {
      ASSERT_TRUE(pass->commit());
    }
    for (std::size_t sequence = 0; sequence < counts.size(); ++sequence) {
      lengths_[sequence] += counts[sequence];
      for (std::size_t layer = 0; layer < shapes_.size(); ++layer) {
        const gpu::LayerFormat format = Formats::of(storage_, static_cast<int>(layer));
        for (Head& head : heads_[sequence][layer]) {
          head.evict(
              [&](int position) { return keeps(policy_, position, lengths_[sequence] - 1); });
          if (format.coded && !more_of_prompt && counts[sequence] > 0)
            head.seal(format.residual, format.first_coded);
        }
      }
    }
  }
  /// A pass that is given up after some layers were appended.
  void dropped_pass(const std::vector<int>& counts) {
    const auto numbers = test::on_device(random_.normals(1 << 17));
    auto pass = cache_.begin({.counts = counts});
    ASSERT_TRUE(pass);
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    test::wait();
  }
  void clear(int sequence) {
    ASSERT_TRUE(cache_.clear(sequence));
    lengths_[static_cast<std::size_t>(sequence)] = 0;
    for (auto& layer : heads_[static_cast<std::size_t>(sequence)]) {
      for (Head& head : layer) head.tokens.clear();
    }
  }

  void compare() {
    for (std::size_t sequence = 0; sequence < heads_.size(); ++sequence) {
      ASSERT_EQ(cache_.length(static_cast<int>(sequence)), lengths_[sequence]);
      for (std::size_t layer = 0; layer < shapes_.size(); ++layer)
        compare(static_cast<int>(sequence), static_cast<int>(layer));
    }
    // what is in use is what the tables name
    const Result<std::size_t> bytes = cache_.bytes_in_use();
    ASSERT_TRUE(bytes);
    ASSERT_LE(*const_cast<Result<std::size_t>&>(bytes), pool_.bytes_held());
  }
  std::size_t bytes() { return *cache_.bytes_in_use(); }
  std::size_t held() { return pool_.bytes_held(); }
  Cache& cache() { return cache_; }

 private:
  static std::size_t size(int rows, int heads, int dim) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(heads * dim);
  }
  void append(std::size_t layer, const std::vector<int>& counts, const float* keys,
              const float* values) {
    const Shape& shape = shapes_[layer];
    for (std::size_t sequence = 0; sequence < counts.size(); ++sequence) {
      for (int row = 0; row < counts[sequence]; ++row) {
        for (Head& head : heads_[sequence][layer]) {
          head.append(lengths_[sequence] + row, keys, shape.head_dim, values, shape.values());
          keys += shape.head_dim;
          values += shape.values();
        }
      }
    }
  }
  void compare(int sequence, int layer) {
    const Shape& shape = shapes_[static_cast<std::size_t>(layer)];
    auto& heads = heads_[static_cast<std::size_t>(sequence)][static_cast<std::size_t>(layer)];
    int most = 0;
    for (int head = 0; head < shape.heads; ++head) {
      const auto& tokens = heads[static_cast<std::size_t>(head)].tokens;
      Result<std::vector<int>> kept = cache_.kept(sequence, layer, head);
      ASSERT_TRUE(kept) << kept.status().message();
      ASSERT_EQ(kept->size(), tokens.size());
      for (std::size_t at = 0; at < tokens.size(); ++at)
        ASSERT_EQ((*kept)[at], tokens[at].position);
      most = std::max(most, static_cast<int>(tokens.size()));
    }
    DeviceVector<float> keys(size(most + 1, shape.heads, shape.head_dim), -7.0F);
    DeviceVector<float> values(size(most + 1, shape.heads, shape.values()), -7.0F);
    ASSERT_TRUE(cache_.export_dense(sequence, layer, most, keys.data(), values.data()));
    test::wait();
    for (int head = 0; head < shape.heads; ++head) {
      const auto& tokens = heads[static_cast<std::size_t>(head)].tokens;
      for (int row = 0; row <= most; ++row) {
        const float* key = keys.data() + size(row, shape.heads, shape.head_dim) +
                           static_cast<std::ptrdiff_t>(head) * shape.head_dim;
        const float* value = values.data() + size(row, shape.heads, shape.values()) +
                             static_cast<std::ptrdiff_t>(head) * shape.values();
        if (row >= static_cast<int>(tokens.size())) {
          ASSERT_EQ(*key, -7.0F) << "wrote beyond a head's tokens";
          continue;
        }
        const test::ModelToken token =
            heads[static_cast<std::size_t>(head)].shown(static_cast<std::size_t>(row));
        for (int dim = 0; dim < shape.head_dim; ++dim)
          ASSERT_EQ(key[dim], token.key[static_cast<std::size_t>(dim)])
              << "layer " << layer << " position " << token.position << " dim " << dim;
        for (int dim = 0; dim < shape.values(); ++dim)
          ASSERT_EQ(value[dim], token.value[static_cast<std::size_t>(dim)])
              << "layer " << layer << " position " << token.position << " dim " << dim;
      }
    }
  }

  std::vector<Shape> shapes_;
  Policy policy_;
  S storage_;
  Random random_;
  gpu::Pool<TestDevice> pool_{{.stream = test::stream()}};
  Cache cache_;
  std::vector<std::vector<std::vector<Head>>> heads_;  // [sequence][layer][head]
  std::vector<int> lengths_;
};

std::vector<Shape> two_shapes() {
  return {{.query_heads = 2, .heads = 2, .head_dim = 64},
          {.query_heads = 3, .heads = 1, .head_dim = 40, .value_dim = 24}};
}

/// Prompts around block edges, chunks, steps in which some sequences rest, cleared sequences.
template <class Policy, class S>
void run_history(Policy policy, S storage) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    {
      Twins<Policy, S> twins(two_shapes(), policy, storage, 3, 11);
      twins.pass({31, 32, 0}, true);
      twins.compare();
      twins.pass({1, 65, 1});
      twins.compare();
      for (int step = 0; step < 34; ++step) {
        if (step == 7) twins.dropped_pass({40, 1, 0});
        twins.pass({1, step % 3 == 0 ? 0 : 1, 1}, false, step % 2 == 0);
        if (step % 11 == 9) twins.compare();
      }
      twins.clear(1);
      twins.pass({0, 97, 33}, false, true);
      twins.compare();
      ASSERT_EQ(twins.cache().counters().missing, 0);
      ASSERT_EQ(twins.cache().counters().refused, 0);
      ASSERT_TRUE(twins.cache().clear());
      for (int sequence = 0; sequence < 3; ++sequence)
        ASSERT_EQ(*twins.cache().tokens(sequence, 0, 1), 0);
    }
  }
}

TEST(GpuCache, FullKeepsAllAsItArrived) {
  run_history(Full{}, Dense<half>{});
  run_history(Full{}, Dense<float>{});
  run_history(Full{}, Dense<BF16>{});
}
TEST(GpuCache, FullSealsInOrder) {
  run_history(Full{}, Kivi<4>{.residual = 0});
  run_history(Full{}, Kivi<2, 8>{.residual = 40});
  run_history(Full{}, Float8<E4M3>{});
}
TEST(GpuCache, FullLeavesTheFirstTokensAndLayersDense) {
  KeepDense keep{.tokens = 5};
  keep.layers.add(0);
  run_history(Full{}, Int8{keep});
  run_history(Full{}, Kivi<3>{.residual = 16, .keep = {.tokens = 40}});
}
TEST(GpuCache, RotatedStoragesAreTurnedAndTurnedBack) {
  Rotated<Kivi<4>> storage;
  storage.residual = 16;
  storage.keep.layers.add(1);
  storage.seed = 7;
  run_history(Full{}, storage);
  storage.keep = {};
  run_history(StreamingLLM{.sinks = 3, .recent = 70}, storage);
}
TEST(GpuCache, StreamingLLMKeepsSinksAndRecent) {
  run_history(StreamingLLM{.sinks = 4, .recent = 41}, Dense<half>{});
  run_history(StreamingLLM{.sinks = 0, .recent = 1}, Dense<float>{});
  run_history(StreamingLLM{.sinks = 3, .recent = 70}, Kivi<4>{.residual = 8});
}

TEST(GpuCache, ManyTokensOfOneHeadAreOrderedInSpans) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<Shape> shapes = {{.query_heads = 1, .heads = 1, .head_dim = 8}};
  Twins<StreamingLLM, Kivi<8>> twins(shapes, {.sinks = 40, .recent = 2000}, {.residual = 33}, 1, 3);
  twins.pass({5000}, true);
  twins.compare();
  twins.pass({1});
  twins.compare();
  twins.pass({4200});
  twins.compare();
}

TEST(GpuCache, BytesStayConstantAtAFixedBudget) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<Shape> shapes = {{.query_heads = 1, .heads = 1, .head_dim = 8}};
  Twins<StreamingLLM, Dense<half>> twins(shapes, {.sinks = 2, .recent = 62}, {}, 2, 5);
  for (int step = 0; step < 200; ++step) twins.pass({1, 1});
  const std::size_t bytes = twins.bytes();
  const std::size_t held = twins.held();
  for (int step = 0; step < 200; ++step) twins.pass({1, 1});
  EXPECT_EQ(twins.bytes(), bytes);
  EXPECT_EQ(twins.held(), held);
  twins.compare();
}

TEST(GpuCache, OldHeadsAreGivenBackToAPoolThatOthersUse) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 8};
  const DeviceVector<float> numbers(2000 * 8, 1.0F);
  gpu::Pool<TestDevice> pool({.stream = test::stream()});
  std::size_t held = 0;
  for (int turn = 0; turn < 4; ++turn) {
    KVCache<Full, OnGpu<Dense<half>, TestDevice>> cache(shape, {}, {}, pool);
    auto pass = cache.begin({.tokens = 2000});
    ASSERT_TRUE(pass);
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    ASSERT_TRUE(pass->commit());
    if (turn == 1) held = pool.bytes_held();
    if (turn > 1) {
      EXPECT_EQ(pool.bytes_held(), held);
    }
  }
}

TEST(GpuCache, MisuseIsRefusedByName) {
  test::begin_schedule(test::kSchedules[0]);
  using Cache = KVCache<StreamingLLM, OnGpu<Dense<half>, TestDevice>>;
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 8};
  gpu::Pool<TestDevice> pool({.stream = test::stream()});
  const float numbers[8] = {};
  test::expect_refused([&] { Cache(shape, {}, {}, pool, {.sequences = 0}); }, {"sequences is 0"});
  test::expect_refused([&] { Cache(shape, {.when = When::full(0)}, {}, pool); },
                       {"when.batch is 0"});
  test::expect_refused([&] { Cache(shape, {}, {}, pool, {.positions = Positions::compacted}); },
                       {"rope"});
  test::expect_refused([&] { gpu::Pool<TestDevice>({.slab_bytes = 5000}); }, {"5000"});
  Cache cache(shape, {}, {}, pool);
  test::expect_refused([&] { (void)cache.begin({.tokens = -1}); }, {"-1"});
  const std::vector<int> two = {1, 1};
  test::expect_refused([&] { (void)cache.begin({.counts = two}); }, {"2 entries"});
  auto pass = cache.begin();
  ASSERT_TRUE(pass);
  test::expect_refused([&] { (void)cache.begin(); }, {"another pass"});
  test::expect_refused([&] { (void)pass->commit(0); }, {"commit", "out of order"});
  test::expect_refused([&] { (void)pass->append(1, numbers, numbers); }, {"layer is 1"});
  test::expect_refused([&] { (void)pass->append(0, gpu::Tensor{}, numbers); }, {"keys", "null"});
  test::expect_refused([&] { (void)pass->append(0, {numbers, 4}, numbers); }, {"strides are 4"});
}

TEST(GpuCache, AnExhaustedPoolIsAStatus) {
  test::begin_schedule(test::kSchedules[0]);
  gpu::Pool<TestDevice> pool({.byte_limit = 600000, .stream = test::stream()});
  KVCache<Full, OnGpu<Dense<float>, TestDevice>> cache(
      Shape{.query_heads = 1, .heads = 1, .head_dim = 64}, {}, {}, pool);
  const DeviceVector<float> numbers(100 * 64, 1.0F);
  for (int turn = 0;; ++turn) {
    ASSERT_LT(turn, 100);
    auto pass = cache.begin({.tokens = 100});
    if (!pass) {
      EXPECT_EQ(pass.status().code(), StatusCode::pool_exhausted);
      EXPECT_NE(pass.status().message().find("limit 600000"), std::string::npos);
      EXPECT_GT(turn, 0);
      EXPECT_EQ(*cache.tokens(0, 0, 0), turn * 100);
      break;
    }
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    ASSERT_TRUE(pass->commit());
  }
}

}  // namespace
}  // namespace kvast
