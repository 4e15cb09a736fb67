// SPDX-License-Identifier: Apache-2.0
// append: tokens into dense blocks, at a prompt and one by one. Checked against the numbers that
// were given.
#include <benchmark/benchmark.h>

#include "bench/ops/filled_cache.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

/// What comes out is the nearest half of what went in.
bool exact(FilledCache<Full, Dense<half>>& filled, const Sizes& sizes) {
  std::vector<float> keys(filled.keys().size());
  std::vector<float> values(keys.size());
  filled.cache().export_dense(0, keys.data(), values.data());
  bool right = sizes.tokens > 0;
  for (std::size_t at = 0; at < keys.size(); ++at) {
    right = right && static_cast<double>(keys[at]) ==
                         test::nearest_half(static_cast<double>(filled.keys()[at]));
    right = right && static_cast<double>(values[at]) ==
                         test::nearest_half(static_cast<double>(filled.values()[at]));
  }
  return right;
}

void append(benchmark::State& state) {
  const Sizes sizes{.query_heads = static_cast<int>(state.range(0)),
                    .heads = static_cast<int>(state.range(1)),
                    .head_dim = static_cast<int>(state.range(2)),
                    .tokens = static_cast<int>(state.range(3)),
                    .layers = 8};
  FilledCache<Full, Dense<half>> filled(sizes, Full{}, Dense<half>{});
  if (!exact(filled, sizes)) {
    state.SkipWithError("wrong result");
    return;
  }
  const double written = 4.0 * sizes.heads * sizes.head_dim * sizes.tokens * sizes.layers;
  Meter meter(state);
  for (auto _ : state) {
    filled.cache().clear();
    auto pass = filled.cache().begin({.tokens = sizes.tokens});
    meter.time(written, [&] {
      for (int layer = 0; layer < sizes.layers; ++layer)
        pass->append(layer, filled.keys().data(), filled.values().data());
    });
  }
  meter.report();
}

BENCHMARK(append)
    ->ArgNames({"Q", "H", "D", "n"})
    ->Args({9, 3, 64, 1})
    ->Args({9, 3, 64, 4096})
    ->Args({32, 8, 128, 1})
    ->Args({32, 8, 128, 4096})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->MinTime(0.3);

}  // namespace

BENCHMARK_MAIN();
