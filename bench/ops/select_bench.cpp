// SPDX-License-Identifier: Apache-2.0
// rank + select of one head under H2O: one token over budget, as in a decode step, and half of a
// prompt at once. Checked against a plain sort.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "bench/ops/one_head.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

constexpr int kRecent = 64;

/// The lowest masses among all but the newest tokens, by sorting.
std::vector<int> expected(OneHead& one, int tokens, int excess) {
  std::vector<std::pair<double, int>> masses;
  for (int slot = 0; slot < tokens - kRecent; ++slot) {
    Block& block = one.head().block(slot / kBlockTokens);
    masses.emplace_back(
        static_cast<double>(state_at<H2O>(one.plan().side, block, slot % kBlockTokens).mass), slot);
  }
  std::sort(masses.begin(), masses.end());
  std::vector<int> slots;
  for (int at = 0; at < excess; ++at) slots.push_back(masses[static_cast<std::size_t>(at)].second);
  std::sort(slots.begin(), slots.end());
  return slots;
}

void rank_select(benchmark::State& state) {
  const int tokens = static_cast<int>(state.range(0));
  const int excess = state.range(1) == 0 ? 1 : tokens / 2;
  OneHead one(tokens);
  const H2O policy{.heavy = tokens, .recent = kRecent};
  RankWork work;
  const auto step = [&] {
    work.target = tokens - excess;
    rank_tokens(policy, one.plan(), one.head(), {.newest = tokens - 1}, work);
    select_victims(one.head(), work);
  };
  step();
  if (work.victims != expected(one, tokens, excess)) {
    state.SkipWithError("wrong result");
    return;
  }
  const double read = tokens * static_cast<double>(sizeof(int) + sizeof(H2O::State));
  Meter meter(state);
  for (auto _ : state) {
    meter.time(read, step);
    benchmark::DoNotOptimize(work.victims.data());
  }
  state.counters["tokens/s"] = static_cast<double>(state.iterations()) * tokens / meter.seconds();
  meter.report();
}

BENCHMARK(rank_select)
    ->ArgNames({"T", "half"})
    ->ArgsProduct({{512, 4096, 16384}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
