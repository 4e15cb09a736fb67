// SPDX-License-Identifier: Apache-2.0
// evict: tokens of one dense f16 head leave, holes are filled, empty blocks are freed. Checked:
// what stays is what should, with its own keys.
#include <benchmark/benchmark.h>

#include <algorithm>

#include "bench/ops/one_head.h"
#include "bench/ops/stream.h"
#include "tests/support/reference.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

bool right(OneHead& one, int tokens, const std::vector<int>& victims) {
  std::vector<Place> order;
  order_tokens(one.head(), order);
  if (static_cast<int>(order.size()) != tokens - static_cast<int>(victims.size())) return false;
  std::vector<float> keys(order.size() * OneHead::kDim);
  std::vector<float> scratch;
  OutputView view(keys.data(), OneHead::kDim, OneHead::kDim);
  export_head(one.plan(), one.head(), 0, view, OutputView{}, order, nullptr, scratch);
  for (std::size_t row = 0; row < order.size(); ++row) {
    const int position = order[row].position;
    if (std::binary_search(victims.begin(), victims.end(), position)) return false;
    for (std::size_t dim = 0; dim < OneHead::kDim; ++dim) {
      const float given = one.keys()[static_cast<std::size_t>(position) * OneHead::kDim + dim];
      if (static_cast<double>(keys[row * OneHead::kDim + dim]) !=
          test::nearest_half(static_cast<double>(given)))
        return false;
    }
  }
  return one.head().dense.count ==
         (static_cast<int>(order.size()) + kBlockTokens - 1) / kBlockTokens;
}

void evict(benchmark::State& state) {
  const int tokens = static_cast<int>(state.range(0));
  const int share = static_cast<int>(state.range(1));  // one token of so many goes
  OneHead one(tokens);
  std::vector<int> victims;
  for (int slot = share / 2; slot < tokens; slot += share) victims.push_back(slot);
  std::vector<int> scratch;
  evict_tokens(one.plan(), one.head(), victims, one.account(), scratch, nullptr);
  if (!right(one, tokens, victims)) {
    state.SkipWithError("wrong result");
    return;
  }
  state.counters["victims"] = static_cast<double>(victims.size());
  double moved = 0;  // tokens that fill holes: their payload is read and written
  const int stay = tokens - static_cast<int>(victims.size());
  for (const int victim : victims) moved += victim < stay ? 1 : 0;
  Meter meter(state);
  for (auto _ : state) {
    one.refill();
    meter.time(moved * 2 * 2 * 2 * OneHead::kDim, [&] {
      evict_tokens(one.plan(), one.head(), victims, one.account(), scratch, nullptr);
    });
  }
  meter.report();
}

BENCHMARK(evict)
    ->ArgNames({"T", "one_of"})
    ->ArgsProduct({{4096, 16384}, {2, 4, 4096}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->MinTime(0.2);

}  // namespace

BENCHMARK_MAIN();
