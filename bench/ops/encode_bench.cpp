// SPDX-License-Identifier: Apache-2.0
// encode: what sealing full blocks costs a decode step, beside the attention of the same steps.
// Every case is compared with the reference in double before it is timed.
#include <benchmark/benchmark.h>

#include "bench/ops/filled_cache.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

/// Two blocks are sealed in every head.
constexpr int kSteps = 2 * kBlockTokens;

template <class Storage>
void encode(benchmark::State& state, Storage storage) {
  Sizes sizes{.query_heads = static_cast<int>(state.range(0)),
              .heads = static_cast<int>(state.range(1)),
              .head_dim = static_cast<int>(state.range(2)),
              .tokens = static_cast<int>(state.range(3))};
  sizes.layers = layers_for(sizes);
  FilledCache<Full, Storage> filled(sizes, Full{}, storage);
  const double error = filled.error();
  if (!(error <= allowed_error(storage))) {
    state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
    return;
  }
  double attend = 0;
  double encode = 0;
  const std::int64_t before = filled.cache().stats().sealed;
  for (auto _ : state) {
    double here = 0;
    for (int step = 0; step < kSteps; ++step) {
      const auto time = filled.step();
      attend += time.attend;
      here += time.commit;
    }
    encode += here;
    state.SetIterationTime(here);
  }
  const auto sealed = static_cast<double>(filled.cache().stats().sealed - before) / kBlockTokens;
  if (sealed != 2.0 * sizes.heads * sizes.layers * static_cast<double>(state.iterations())) {
    state.SkipWithError("not every block was sealed");
    return;
  }
  state.counters["us_per_block"] = encode / sealed * 1e6;
  state.counters["of_attend"] = encode / attend;
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"Q", "H", "D", "T"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->MinTime(0.05);
  for (const int tokens : {1024, 4096, 16384}) {
    bench->Args({9, 3, 64, tokens});
    bench->Args({32, 8, 128, tokens});
  }
}

BENCHMARK_CAPTURE(encode, int8, Int8{})->Apply(shapes);
BENCHMARK_CAPTURE(encode, fp8, Float8<E4M3>{})->Apply(shapes);
BENCHMARK_CAPTURE(encode, kivi4, Kivi<4>{})->Apply(shapes);
BENCHMARK_CAPTURE(encode, kivi3, Kivi<3>{})->Apply(shapes);
BENCHMARK_CAPTURE(encode, kivi2, Kivi<2>{})->Apply(shapes);
BENCHMARK_CAPTURE(encode, turbo3, TurboQuant<3>{})->Apply(shapes);

}  // namespace

BENCHMARK_MAIN();
