// SPDX-License-Identifier: Apache-2.0
// Decode attention: bytes per second, and the share of what this machine's threads can stream, per
// shape and length. Every case is compared with the reference in double before it is timed, and
// refused where it is wrong.
#include <benchmark/benchmark.h>

#include "bench/ops/filled_cache.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

template <class Policy, class Storage>
void attend(benchmark::State& state, Policy policy, Storage storage, double bits) {
  Sizes sizes{.query_heads = static_cast<int>(state.range(0)),
              .heads = static_cast<int>(state.range(1)),
              .head_dim = static_cast<int>(state.range(2)),
              .tokens = static_cast<int>(state.range(3))};
  sizes.layers = layers_for(sizes);
  FilledCache<Policy, Storage> filled(sizes, policy, storage);
  const double error = filled.error();
  if (!(error <= allowed_error(storage))) {
    state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
    return;
  }
  filled.set_payload_per_token(2 * sizes.head_dim * bits / 8);
  Meter meter(state);
  for (auto _ : state) {
    (void)stream();  // codes would partly lie in the processor's cache, f16 would not
    const double step = filled.step().attend;
    meter.add(step, filled.bytes_read());
  }
  meter.report();
  state.counters["layers"] = sizes.layers;
  state.counters["error"] = error;
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"Q", "H", "D", "T"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->MinTime(0.5);
  for (const int tokens : {1024, 4096, 16384, 65536}) {
    bench->Args({9, 3, 64, tokens});
    bench->Args({32, 8, 128, tokens});
  }
  bench->Args({64, 8, 128, 16384});  // eight query heads share a head: bound by arithmetic
}

void two_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"Q", "H", "D", "T"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->MinTime(0.5);
  bench->Args({9, 3, 64, 16384})->Args({32, 8, 128, 16384});
}

BENCHMARK_CAPTURE(attend, f16, Full{}, Dense<half>{}, 16.0)->Apply(shapes);
BENCHMARK_CAPTURE(attend, f32, Full{}, Dense<float>{}, 32.0)->Apply(shapes);
BENCHMARK_CAPTURE(attend, int8, Full{}, Int8{}, 8.5)->Apply(shapes);
BENCHMARK_CAPTURE(attend, fp8, Full{}, Float8<E4M3>{}, 8.0)->Apply(shapes);
BENCHMARK_CAPTURE(attend, kivi4, Full{}, Kivi<4>{}, 5.0)->Apply(shapes);
BENCHMARK_CAPTURE(attend, turbo3, Full{}, TurboQuant<3>{}, 3.5)->Apply(shapes);
BENCHMARK_CAPTURE(attend, kivi2, Full{}, Kivi<2>{}, 3.0)->Apply(shapes);
BENCHMARK_CAPTURE(attend, kivi3, Full{}, Kivi<3>{}, 4.0)->Apply(two_shapes);
BENCHMARK_CAPTURE(attend, kivi42, Full{}, Kivi<4, 2>{}, 4.0)->Apply(two_shapes);
BENCHMARK_CAPTURE(attend, turbo4, Full{}, TurboQuant<4>{}, 4.5)->Apply(two_shapes);
BENCHMARK_CAPTURE(attend, turbo2, Full{}, TurboQuant<2>{}, 2.5)->Apply(two_shapes);
BENCHMARK_CAPTURE(attend, rotated_kivi2, Full{}, Rotated<Kivi<2>>{}, 3.0)->Apply(two_shapes);

}  // namespace

BENCHMARK_MAIN();
