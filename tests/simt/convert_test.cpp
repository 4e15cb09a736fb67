// SPDX-License-Identifier: Apache-2.0
// Caches that move between the host and the device: what they hold, and what they do afterwards.
#include "kvast/gpu/convert.cuh"

#include <gtest/gtest.h>

#include <cstring>

#include "kvast/kvast.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::DeviceVector;
using test::TestDevice;

constexpr Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16};
constexpr int kSequence = 1;  // of two on the device

/// A host's cache, one on the device, and the numbers of passes.
template <class Policy, class S>
class Pair {
 public:
  using OnHost = KVCache<Policy, S>;
  using OnDevice = KVCache<Policy, OnGpu<S, TestDevice>>;

  Pair(Policy policy, S storage, const CacheOptions& options = {},
       const gpu::CacheOptions& device_options = {.sequences = 2})
      : host(kShape, policy, storage, host_pool, options),
        back(kShape, policy, storage, host_pool, options),
        device(kShape, policy, {storage}, device_pool, device_options) {}

  struct Numbers {
    std::vector<float> keys, values, queries;
  };
  Numbers numbers(int tokens) {
    const auto count = static_cast<std::size_t>(tokens * kShape.layers * kShape.head_dim);
    return {random_.normals(2 * count), random_.normals(2 * count), random_.normals(4 * count)};
  }

  static void pass(OnHost& cache, const Numbers& numbers, const PassOptions& options) {
    auto pass = cache.begin(options);
    ASSERT_TRUE(pass);
    std::vector<float> output(numbers.queries.size());
    for (int layer = 0; layer < kShape.layers; ++layer) {
      const At at(layer, options.tokens);
      pass->append(layer, numbers.keys.data() + at.keys, numbers.values.data() + at.keys);
      pass->attend(layer, numbers.queries.data() + at.queries, output.data());
      pass->commit(layer);
    }
  }
  void pass_on_device(const Numbers& numbers, const PassOptions& options) {
    const std::vector<int> counts{0, options.tokens};
    const auto keys = test::on_device(numbers.keys);
    const auto values = test::on_device(numbers.values);
    const auto queries = test::on_device(numbers.queries);
    DeviceVector<float> output(numbers.queries.size());
    auto pass = device.begin({.counts = counts,
                              .last_of_prompt = options.last_of_prompt,
                              .more_of_prompt = options.more_of_prompt});
    ASSERT_TRUE(pass) << pass.status().message();
    for (int layer = 0; layer < kShape.layers; ++layer) {
      const At at(layer, options.tokens);
      ASSERT_TRUE(pass->append(layer, keys.data() + at.keys, values.data() + at.keys));
      ASSERT_TRUE(pass->attend(layer, queries.data() + at.queries, output.data()));
    }
    ASSERT_TRUE(pass->commit());
    test::wait();
  }
  void to_device() {
    ASSERT_TRUE(device.clear(kSequence));
    const Status status = gpu::to_device(host, device, kSequence);
    ASSERT_TRUE(status) << status.message();
  }
  void to_host() {
    back.clear();
    const Status status = gpu::to_host(device, kSequence, back);
    ASSERT_TRUE(status) << status.message();
  }

  BlockPool host_pool;
  gpu::Pool<TestDevice> device_pool{{.slab_bytes = 4096, .stream = test::stream()}};
  OnHost host;
  OnHost back;
  OnDevice device;

 private:
  struct At {  // where a layer's numbers begin
    At(int layer, int tokens)
        : keys(static_cast<std::size_t>(layer * tokens * kShape.heads * kShape.head_dim)),
          queries(static_cast<std::size_t>(layer * tokens * kShape.query_heads * kShape.head_dim)) {
    }
    std::size_t keys;
    std::size_t queries;
  };
  test::Random random_{11};
};

template <class Cache>
void expect_same(const Cache& one, const Cache& other) {
  ASSERT_EQ(one.length(), other.length());
  auto& left = const_cast<Cache&>(one);
  auto& right = const_cast<Cache&>(other);
  for (int layer = 0; layer < kShape.layers; ++layer) {
    int most = 0;
    for (int head = 0; head < kShape.heads; ++head) {
      ASSERT_EQ(one.slots(layer, head), other.slots(layer, head)) << "layer " << layer;
      most = std::max(most, one.tokens(layer, head));
    }
    std::vector<float> numbers[4];
    for (auto& line : numbers)
      line.resize(static_cast<std::size_t>(most * kShape.heads * kShape.head_dim));
    left.export_dense(layer, numbers[0].data(), numbers[1].data());
    right.export_dense(layer, numbers[2].data(), numbers[3].data());
    ASSERT_EQ(numbers[0], numbers[2]) << "keys of layer " << layer;
    ASSERT_EQ(numbers[1], numbers[3]) << "values of layer " << layer;
  }
}

/// There and back again, then on: states came along.
template <class Policy, class S>
void check_round_trip(Policy policy, S storage, const CacheOptions& options = {},
                      const gpu::CacheOptions& device_options = {.sequences = 2}) {
  test::begin_schedule(test::kSchedules[0]);
  Pair<Policy, S> pair(policy, storage, options, device_options);
  using Mine = Pair<Policy, S>;
  const auto both = [&](const PassOptions& pass, bool with_back) {
    const auto numbers = pair.numbers(pass.tokens);
    Mine::pass(pair.host, numbers, pass);
    if (with_back) Mine::pass(pair.back, numbers, pass);
  };
  ASSERT_NO_FATAL_FAILURE(both({.tokens = 150, .last_of_prompt = true}, false));
  for (int step = 0; step < 30; ++step) ASSERT_NO_FATAL_FAILURE(both({}, false));
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  ASSERT_NO_FATAL_FAILURE(expect_same(pair.host, pair.back));
  for (int step = 0; step < 60; ++step) ASSERT_NO_FATAL_FAILURE(both({}, true));
  ASSERT_NO_FATAL_FAILURE(expect_same(pair.host, pair.back));
}

TEST(GpuConvert, RoundTrips) {
  check_round_trip(Full{}, Kivi<4>{.residual = 32});
  check_round_trip(H2O{.heavy = 60, .recent = 30}, Dense<half>{});
#if !defined(__SANITIZE_ADDRESS__)  // the same kernels; whole caches compile for minutes
  check_round_trip(H2O{.heavy = 60, .recent = 30}, Rotated<Kivi<4>>{});
  check_round_trip(
      Scissorhands{.tokens_kept = 80, .recent = 5, .window = 30, .when = When::full(20)},
      Float8<E4M3>{});
  check_round_trip(L2Norm{.tokens_kept = 80, .recent = 5, .skip = {}}, Kivi<3>{.residual = 0});
  check_round_trip(Corm{.window = 20, .recent = 8}, Dense<BF16>{});
#endif
}

TEST(GpuConvert, CompactedPositionsKeepTheirSlots) {
  const Rope rope = Rope::plain(16, 10000.0, Pairing::halves);
  check_round_trip(StreamingLLM{.sinks = 4, .recent = 60}, Dense<half>{},
                   {.positions = Positions::compacted, .rope = rope},
                   {.sequences = 2, .positions = Positions::compacted, .rope = rope});
}

/// The device's own attention decides who goes, from the host's state in each step.
template <class Policy>
void check_fused(Policy policy) {
  test::begin_schedule(test::kSchedules[0]);
  using Mine = Pair<Policy, Dense<float>>;
  Mine pair(policy, {});
  const auto prompt = pair.numbers(90);
  Mine::pass(pair.host, prompt, {.tokens = 90, .last_of_prompt = true});
  ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(prompt, {.tokens = 90, .last_of_prompt = true}));
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  ASSERT_NO_FATAL_FAILURE(expect_kept(pair));
  for (int step = 0; step < 40; ++step) {
    ASSERT_NO_FATAL_FAILURE(pair.to_device());
    const auto numbers = pair.numbers(1);
    Mine::pass(pair.host, numbers, {});
    ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(numbers, {}));
    ASSERT_NO_FATAL_FAILURE(expect_kept(pair)) << "step " << step;
  }
}
template <class Pair>
void expect_kept(Pair& pair) {
  for (int layer = 0; layer < kShape.layers; ++layer) {
    for (int head = 0; head < kShape.heads; ++head)
      ASSERT_EQ(*pair.device.kept(kSequence, layer, head), pair.host.kept(layer, head))
          << "layer " << layer << ", head " << head;
  }
}

TEST(GpuConvert, AttentionOnTheDeviceDecidesAsTheHostsDoes) {
  check_fused(H2O{.heavy = 30, .recent = 10});
#if !defined(__SANITIZE_ADDRESS__)
  check_fused(AdaHeads<SnapKV>{{.tokens_kept = 40, .window = 8}});
  check_fused(Corm{.window = 16, .recent = 8});
#endif
}

#if !defined(__SANITIZE_ADDRESS__)
/// A policy that looks back at a prompt's newest queries finds them in the last chunk, or the chunk
/// is refused; also where the earlier ones came to another machine.
TEST(GpuConvert, PromptsThatArePrunedMayComeInChunks) {
  test::begin_schedule(test::kSchedules[0]);
  using Mine = Pair<SnapKV, Dense<float>>;
  Mine pair({.tokens_kept = 40, .window = 8}, {});
  const auto both = [&](const PassOptions& options) {
    const auto numbers = pair.numbers(options.tokens);
    Mine::pass(pair.host, numbers, options);
    ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(numbers, options));
    ASSERT_NO_FATAL_FAILURE(expect_kept(pair));
  };
  for (int prompt = 0; prompt < 2; ++prompt) {
    ASSERT_NO_FATAL_FAILURE(both({.tokens = 60, .more_of_prompt = true}));
    ASSERT_NO_FATAL_FAILURE(both({.tokens = 30, .more_of_prompt = true}));
    ASSERT_NO_FATAL_FAILURE(both({.tokens = 12, .last_of_prompt = true}));
    EXPECT_EQ(*pair.device.tokens(kSequence, 1, 1), 40);
  }
  ASSERT_NO_FATAL_FAILURE(both({}));
  ASSERT_NO_FATAL_FAILURE(both({.tokens = 3, .last_of_prompt = true}));  // a short prompt
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  Mine::pass(pair.back, pair.numbers(3), {.tokens = 3, .last_of_prompt = true});
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  ASSERT_TRUE(pair.device.settle());  // knows that no prompt goes on
  ASSERT_NO_FATAL_FAILURE(both({.tokens = 3, .last_of_prompt = true}));
  ASSERT_NO_FATAL_FAILURE(both({.tokens = 20, .more_of_prompt = true}));
  const std::vector<int> counts{0, 5};
  const auto end = [&] { (void)pair.device.begin({.counts = counts, .last_of_prompt = true}); };
  test::expect_refused(end, {"sequence 1's prompt has 5 tokens", "SnapKV", "newest 8"});
  BlockPool fresh_pool;
  KVCache<SnapKV, Dense<float>> fresh(kShape, {.tokens_kept = 40, .window = 8}, {}, fresh_pool);
  test::expect_refused([&] { (void)gpu::to_host(pair.device, kSequence, fresh); },
                       {"a prompt of sequence 1 goes on", "SnapKV looks back at queries"});
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  test::expect_refused(end, {"sequence 1's prompt has 5 tokens", "SnapKV", "newest 8"});
  ASSERT_NO_FATAL_FAILURE(both({.tokens = 8, .last_of_prompt = true}));
}
#endif

/// A choice that another sequence left behind, or nobody made, does not travel.
TEST(GpuConvert, ChoicesThatWereNotMadeStay) {
  test::begin_schedule(test::kSchedules[0]);
  using Mine = Pair<FastGen, Dense<float>>;
  Mine pair({.threshold = 0.3F}, {});
  const std::vector<TokenKind> kinds(60, TokenKind::other);
  Mine::pass(pair.host, pair.numbers(60), {.tokens = 60, .last_of_prompt = true, .kinds = kinds});
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  ASSERT_NE(pair.device.choice(kSequence, 0, 0)->rule, FastGen::Rule::full);
  ASSERT_TRUE(pair.device.clear(kSequence));
  ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(pair.numbers(50), {.tokens = 50, .kinds = kinds}));
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  Mine::pass(pair.back, pair.numbers(1), {.kinds = std::span(kinds).first(1)});
  EXPECT_EQ(pair.back.tokens(0, 0), 51);  // no prompt has ended: all stay
}

/// What was chosen for each head travels, and holds where it comes to: chosen on either side.
#if !defined(__SANITIZE_ADDRESS__)
TEST(GpuConvert, ChoicesComeAlong) {
  test::begin_schedule(test::kSchedules[0]);
  const FastGen policy{.threshold = 0.7F, .frequent = 0.2F, .local = 0.1F};
  using Mine = Pair<FastGen, Dense<float>>;
  Mine pair(policy, {});
  const auto prompt = pair.numbers(90);
  std::vector<TokenKind> kinds(90, TokenKind::other);
  for (std::size_t at = 0; at < kinds.size(); at += 7) kinds[at] = TokenKind::punctuation;
  Mine::pass(pair.host, prompt, {.tokens = 90, .last_of_prompt = true, .kinds = kinds});
  const auto expect_choices = [&](auto& host) {
    for (int layer = 0; layer < kShape.layers; ++layer) {
      for (int head = 0; head < kShape.heads; ++head) {
        const FastGen::Choice choice = *pair.device.choice(kSequence, layer, head);
        const FastGen::Choice wanted = host.choice(layer, head);
        EXPECT_EQ(choice.rule, wanted.rule);
        EXPECT_EQ(choice.window, wanted.window);
        EXPECT_EQ(std::memcmp(choice.mass, wanted.mass, sizeof wanted.mass), 0);
      }
    }
  };
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  ASSERT_NO_FATAL_FAILURE(expect_choices(pair.host));
  for (int step = 0; step < 20; ++step) {
    const auto numbers = pair.numbers(1);
    Mine::pass(pair.host, numbers, {});
    ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(numbers, {}));
    ASSERT_NO_FATAL_FAILURE(expect_kept(pair)) << "step " << step;
  }
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  ASSERT_NO_FATAL_FAILURE(expect_choices(pair.back));
  for (int step = 0; step < 20; ++step) {
    const auto numbers = pair.numbers(1);
    Mine::pass(pair.host, numbers, {});
    Mine::pass(pair.back, numbers, {});
  }
  ASSERT_NO_FATAL_FAILURE(expect_same(pair.host, pair.back));
}
#endif

/// A prompt that goes on after it moved: what waits is sealed by the device's first pass.
TEST(GpuConvert, PromptsGoOnWhereTheyWereMovedTo) {
  test::begin_schedule(test::kSchedules[0]);
  using Mine = Pair<Full, Kivi<4>>;
  Mine pair({}, {.residual = 0});
  for (int chunk = 0; chunk < 4; ++chunk)
    ASSERT_NO_FATAL_FAILURE(
        (Mine::pass(pair.host, pair.numbers(160), {.tokens = 160, .more_of_prompt = true})));
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  ASSERT_NO_FATAL_FAILURE(pair.pass_on_device(pair.numbers(1), {}));
  EXPECT_EQ(pair.device.counters().missing, 0);
  EXPECT_EQ(*pair.device.tokens(kSequence, 0, 0), 641);
}

TEST(GpuConvert, MisuseIsRefusedByName) {
  Pair<Full, Dense<half>> pair({}, {});
  ASSERT_NO_FATAL_FAILURE(
      (Pair<Full, Dense<half>>::pass(pair.host, pair.numbers(5), {.tokens = 5})));
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  test::expect_refused([&] { (void)gpu::to_device(pair.host, pair.device, kSequence); },
                       {"to_device", "sequence 1", "5 tokens"});
  test::expect_refused([&] { (void)gpu::to_device(pair.host, pair.device, 2); }, {"sequence is 2"});
  ASSERT_NO_FATAL_FAILURE(pair.to_host());
  test::expect_refused([&] { (void)gpu::to_host(pair.device, kSequence, pair.back); },
                       {"to_host", "5 tokens"});
}

TEST(GpuConvert, EmptyCachesMayTravel) {
  test::begin_schedule(test::kSchedules[0]);
  Pair<Full, Kivi<4>> pair({}, {});
  ASSERT_NO_FATAL_FAILURE(pair.to_host());  // before any pass
  EXPECT_EQ(pair.back.length(), 0);
  ASSERT_NO_FATAL_FAILURE(pair.to_device());
  EXPECT_EQ(*pair.device.tokens(kSequence, 0, 0), 0);
}

TEST(GpuConvert, OtherPositionsAreRefused) {
  const Rope rope = Rope::plain(16, 10000.0, Pairing::halves);
  const Rope other = Rope::plain(16, 500000.0, Pairing::halves);
  const auto refused = [](Pair<Full, Dense<half>> pair) {
    test::expect_refused([&] { (void)gpu::to_device(pair.host, pair.device, 0); }, {"positions"});
    test::expect_refused([&] { (void)gpu::to_host(pair.device, 0, pair.host); }, {"positions"});
  };
  refused({{}, {}, {.positions = Positions::unrotated, .rope = rope}});
  refused({{},
           {},
           {.positions = Positions::compacted, .rope = rope},
           {.sequences = 2, .positions = Positions::compacted, .rope = other}});
}

}  // namespace
}  // namespace kvast
