// SPDX-License-Identifier: Apache-2.0
// Policies on the device: what a commit that evicts costs beside the attention of the same step,
// what a prompt's end that drops half moves, and select beside CUB's segmented sort of the same
// ranks.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cub/device/device_segmented_radix_sort.cuh>
#include <string>
#include <vector>

#include "bench/gpu/decoder.cuh"
#include "kvast/policy/l2_norm.h"

namespace kvast::bench {
namespace {

constexpr Shape kShape{.layers = 32, .query_heads = 32, .heads = 8, .head_dim = 128};
constexpr int kBatch = 16;
constexpr int kTokens = 8192;

/// Norms of keys rank tokens without a prompt's attention, which would take minutes to make.
template <class S>
class Evicting {
 public:
  using Cache = KVCache<L2Norm, OnGpu<S>>;
  using Pass = typename Cache::Pass;

  explicit Evicting(int kept, When when = When::step())
      : cache_(kShape, {.tokens_kept = kept, .recent = 32, .skip = {}, .when = when}, {S{}}, pool_,
               {.sequences = kBatch}) {
    constexpr int kChunk = 1024;
    const DeviceArray<half> keys(kCase.numbers(kShape.heads, kChunk));
    for (int first = 0; first < kTokens; first += kChunk) {
      fill(kCase, Kind::key, kShape.heads, kChunk, first, keys.data());
      Pass pass = append(kChunk, keys.data());
      check(pass.commit());
      must(cudaStreamSynchronize(timer().stream()), "prompt");
    }
    fill(kCase, Kind::key, kShape.heads, 1, kTokens, row_.data());
    fill(kCase, Kind::query, kShape.query_heads, 1, kTokens, queries_.data());
  }
  Pass append(int tokens, const half* rows, bool last_of_prompt = false) {
    Result<Pass> pass = cache_.begin({.tokens = tokens, .last_of_prompt = last_of_prompt});
    if (!pass) check(pass.status());
    for (int layer = 0; layer < kShape.layers; ++layer) check(pass->append(layer, rows, rows));
    return std::move(*pass);
  }
  Pass step(bool last_of_prompt = false) { return append(1, row_.data(), last_of_prompt); }
  void attend(Pass& pass) {
    for (int layer = 0; layer < kShape.layers; ++layer)
      check(pass.attend(layer, queries_.data(), output_.data()));
  }
  Cache& cache() { return cache_; }

 private:
  static constexpr Case kCase{kShape, kBatch, kTokens};
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = timer().stream()}};
  Cache cache_;
  DeviceArray<half> row_{kCase.numbers(kShape.heads)};
  DeviceArray<half> queries_{kCase.numbers(kShape.query_heads)};
  DeviceArray<half> output_{kCase.numbers(kShape.query_heads)};
};

/// rank, select, evict and, where there are codes, seal and merge: a step of all layers at half the
/// tokens.
template <class S>
void time_commit(benchmark::State& state) {
  Evicting<S> decoder(kTokens / 2);
  Result<int> tokens = decoder.cache().tokens(kBatch - 1, kShape.layers - 1, 7);
  if (!tokens || *tokens != kTokens / 2) {
    tell_wrong(state);
    return;
  }
  double commits = 0.0;
  double attends = 0.0;
  for (auto _ : state) {
    auto pass = decoder.step();
    attends += timer().seconds([&](cudaStream_t) { decoder.attend(pass); });
    const double taken = timer().seconds([&](cudaStream_t) { check(pass.commit()); });
    state.SetIterationTime(taken);
    commits += taken;
  }
  state.counters["of attention"] = commits / attends;
}

/// A prompt's end at which half of all tokens go: rank, select, and the rest is brought together.
/// Bytes are those that must be read and written for that alone: dense rows that come from behind
/// what is left; of codes, for each block that was freed two that were read and one that was
/// written, as blocks are half full: merging stops where 7/6 of the live slots are left.
template <class S>
void time_prune(benchmark::State& state) {
  double seconds = 0.0;
  double bytes = 0.0;
  for (auto _ : state) {
    Evicting<S> decoder(kTokens / 2, When::prompt());
    auto pass = decoder.step(true);
    const double taken = timer().seconds([&](cudaStream_t) { check(pass.commit()); });
    state.SetIterationTime(taken);
    seconds += taken;
    Result<std::vector<int>> kept = decoder.cache().kept(kBatch - 1, kShape.layers - 1, 7);
    if (!kept || kept->size() != kTokens / 2) {
      tell_wrong(state);
      return;
    }
    const gpu::LayerView& view = decoder.cache().view(0);
    double of_head = 0.0;
    if (view.coded_keys.bytes > 0) {
      const Result<std::vector<int>> slots =
          decoder.cache().slots(kBatch - 1, kShape.layers - 1, 7);
      if (!slots) return tell_wrong(state);
      const auto freed = static_cast<double>((kTokens - std::ssize(*slots)) / kBlockTokens);
      of_head = 3.0 * freed * static_cast<double>(view.coded_keys.bytes + view.coded_values.bytes);
    } else {
      const auto moved = kept->end() - std::lower_bound(kept->begin(), kept->end(), kTokens / 2);
      of_head = 2.0 * static_cast<double>(moved) *
                static_cast<double>(view.dense_key_bytes + view.dense_value_bytes);
    }
    bytes += of_head * kShape.heads * kShape.layers * kBatch;
  }
  state.counters["GB/s"] = bytes / seconds * 1e-9;
  state.counters["share"] = bytes / seconds / bandwidth().copy;
}

/// All tokens of all heads live again.
struct Revive {
  static constexpr int kThreads = 128;
  gpu::LayerView layer{};

  /// Grid: sequences * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    Head& head = layer.head(block.index());
    for (int at = block.thread(); at < head.blocks(); at += block.threads())
      head.block(at).live = kAllLive >> (kBlockTokens - head.block(at).used);
    if (block.thread() == 0) head.dense.live = head.dense.slots();
  }
};
/// Ranks of a layer as a sort wants them: [tables, tokens].
struct CopyRanks {
  static constexpr int kThreads = 128;
  gpu::LayerView layer{};
  float* to = nullptr;

  /// Grid: sequences * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const Head& head = layer.head(block.index());
    for (int at = block.thread(); at < kTokens; at += block.threads())
      to[std::int64_t{block.index()} * kTokens + at] =
          layer.ranks_of(head.block(at / kBlockTokens))[at % kBlockTokens];
  }
};

/// `kept` of 8192 tokens of each head.
void time_select(benchmark::State& state, int kept) {
  Evicting<Dense<half>> decoder(1 << 20);
  const auto& cache = decoder.cache();
  std::vector<gpu::LayerView> views;
  for (int layer = 0; layer < kShape.layers; ++layer) views.push_back(cache.view(layer));
  const DeviceArray<gpu::LayerView> layers(views.size());
  must(cudaMemcpy(layers.data(), views.data(), views.size() * sizeof(gpu::LayerView),
                  cudaMemcpyHostToDevice),
       "views");
  const int tables = views[0].tables();
  const int segments = tables * kShape.layers;
  const gpu::detail::Place place{layers.data(), tables};
  auto pass = decoder.step();  // ranks are of a pass that is open
  const auto rank = [&](cudaStream_t stream) {
    for (const gpu::LayerView& view : views) check(gpu::launch(Revive{view}, {tables, 0}, stream));
    const L2Norm policy{.tokens_kept = kept, .recent = 32, .skip = {}, .when = When::step()};
    check(gpu::launch(gpu::Rank<L2Norm>{place, policy, {.layers = kShape.layers}}, {segments, 0},
                      stream));
  };
  double selects = 0.0;
  for (auto _ : state) {
    rank(timer().stream());
    const double taken = timer().seconds([&](cudaStream_t stream) {
      check(gpu::launch(gpu::Select{place, views[0].turns}, {segments, gpu::Select::kSharedBytes},
                        stream));
    });
    state.SetIterationTime(taken);
    selects += taken;
  }
  Result<int> left = decoder.cache().tokens(kBatch - 1, kShape.layers - 1, 7);
  if (!left || *left != kept) {
    tell_wrong(state);
    return;
  }
  rank(timer().stream());
  const std::size_t count = static_cast<std::size_t>(segments) * kTokens;
  const DeviceArray<float> ranks(count);
  const DeviceArray<float> sorted(count);
  for (const gpu::LayerView& view : views) {
    float* to = ranks.data() + std::int64_t{view.layer} * tables * kTokens;
    check(gpu::launch(CopyRanks{view, to}, {tables, 0}, timer().stream()));
  }
  std::vector<int> ends;
  for (int at = 0; at <= segments; ++at) ends.push_back(at * kTokens);
  const DeviceArray<int> offsets(ends.size());
  must(cudaMemcpy(offsets.data(), ends.data(), ends.size() * sizeof(int), cudaMemcpyHostToDevice),
       "offsets");
  std::size_t bytes = 0;
  const auto sort = [&](void* scratch, cudaStream_t stream) {
    must(cub::DeviceSegmentedRadixSort::SortKeys(scratch, bytes, ranks.data(), sorted.data(),
                                                 static_cast<int>(count), segments, offsets.data(),
                                                 offsets.data() + 1, 0, 32, stream),
         "CUB");
  };
  sort(nullptr, timer().stream());
  const DeviceArray<std::byte> scratch(bytes);
  double sorts = 0.0;
  for (int turn = 0; turn < 13; ++turn) {
    const double taken =
        timer().seconds([&](cudaStream_t stream) { sort(scratch.data(), stream); });
    if (turn >= 3) sorts += taken / 10.0;  // the first ones warm up
  }
  state.counters["times as fast as CUB's sort"] =
      sorts / (selects / static_cast<double>(state.iterations()));
}

}  // namespace

void add_policy_benches() {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime();
  };
  add("commit/f16/half of 8k", [](benchmark::State& state) { time_commit<Dense<half>>(state); });
  add("commit/kivi4/half of 8k", [](benchmark::State& state) { time_commit<Kivi<4>>(state); });
  const auto prune = [](const char* name, auto run) {
    benchmark::RegisterBenchmark(name, run)->UseManualTime()->Iterations(3);
  };
  prune("prune/f16/half of 8k", [](benchmark::State& state) { time_prune<Dense<half>>(state); });
  prune("prune/kivi4/half of 8k", [](benchmark::State& state) { time_prune<Kivi<4>>(state); });
  add("select/one of 8k goes", [](benchmark::State& state) { time_select(state, kTokens); });
  add("select/half of 8k goes", [](benchmark::State& state) { time_select(state, kTokens / 2); });
}

}  // namespace kvast::bench
