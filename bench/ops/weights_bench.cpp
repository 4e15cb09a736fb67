// SPDX-License-Identifier: Apache-2.0
// What it costs in decoding that a policy is given its weights: steps of a cache that observes and
// of one that does not, in turn, so that both see the same machine. `cost` is the excess of the
// median attend, `commit` the excess of the median commit (nothing evicted), both
// as shares of attend without weights.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "bench/ops/filled_cache.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

constexpr int kNever = 1 << 28;

template <class Storage>
void weights(benchmark::State& state, Storage storage) {
  Sizes sizes{.query_heads = static_cast<int>(state.range(0)),
              .heads = static_cast<int>(state.range(1)),
              .head_dim = static_cast<int>(state.range(2)),
              .tokens = static_cast<int>(state.range(3))};
  sizes.layers = layers_for(sizes);
  FilledCache<Full, Storage> plain(sizes, Full{}, storage);
  FilledCache<H2O, Storage> seeing(sizes, H2O{.heavy = kNever, .recent = kNever}, storage);
  const double error = std::max(plain.error(), seeing.error());
  if (!(error <= allowed_error(storage))) {
    state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
    return;
  }
  std::vector<double> attend[2];
  std::vector<double> commit[2];
  for (auto _ : state) {
    const auto without = plain.step();
    const auto with = seeing.step();
    attend[0].push_back(without.attend);
    attend[1].push_back(with.attend);
    commit[0].push_back(without.commit);
    commit[1].push_back(with.commit);
    state.SetIterationTime(with.attend);
  }
  const double base = median(attend[0]);
  state.counters["layers"] = sizes.layers;
  state.counters["without_ms"] = 1e3 * base;
  state.counters["cost"] = median(attend[1]) / base - 1;
  state.counters["commit"] = (median(commit[1]) - median(commit[0])) / base;
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"Q", "H", "D", "T"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->MinTime(1.0);
  for (const int tokens : {1024, 4096, 16384}) {
    bench->Args({9, 3, 64, tokens});
    bench->Args({32, 8, 128, tokens});
  }
}

BENCHMARK_CAPTURE(weights, f16, Dense<half>{})->Apply(shapes);
BENCHMARK_CAPTURE(weights, kivi4, Kivi<4>{})->Apply(shapes);

}  // namespace

BENCHMARK_MAIN();
