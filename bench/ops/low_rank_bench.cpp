// SPDX-License-Identifier: Apache-2.0
// Decode attention by rank: of values and of keys that the model does not rotate, and of keys that
// are reconstructed and rotated inside attend. Each case is compared with the reference in double
// before it is timed. Ends with the rank at which reconstruction breaks even with keys kept whole.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <map>
#include <memory>
#include <numeric>

#include "bench/ops/filled_cache.h"
#include "bench/ops/stream.h"

namespace {

using namespace kvast;
using namespace kvast::bench;

/// The first directions are the axes: as good as any for timing, and exact to check.
std::shared_ptr<const Calibration> axes(const Shape& shape, bool before_rope) {
  auto made = std::make_shared<Calibration>();
  made->before_rope = before_rope;
  Directions all{.heads = 1, .dim = shape.head_dim, .energies = {}, .vectors = {}};
  for (int row = 0; row < all.dim; ++row) {
    all.energies.push_back(1.0);
    for (int at = 0; at < all.dim; ++at) all.vectors.push_back(row == at ? 1.0F : 0.0F);
  }
  Shape one = shape;
  one.layers = 1;
  for (int layer = 0; layer < shape.layers; ++layer) {
    made->shapes.push_back(one);
    made->layers.push_back({all, all});
  }
  return made;
}

/// What is in a basis of fewer directions.
enum class Part { values, keys, both, rotated_keys };

class Case {
 public:
  Case(const Shape& shape, Part part, int rank, int tokens)
      : shape_(shape),
        rotates_(part == Part::rotated_keys),
        cache_(shape, {}, storage(part, rank), pool_, options()) {
    const auto row = static_cast<std::size_t>(shape.heads * shape.head_dim);
    keys_ = random_numbers(row * static_cast<std::size_t>(tokens + 1), 1);
    values_ = random_numbers(keys_.size(), 2);
    queries_ = random_numbers(static_cast<std::size_t>(shape.query_heads * shape.head_dim), 3);
    output_.resize(queries_.size());
    auto pass = cache_.begin({.tokens = tokens, .last_of_prompt = true});
    for (int layer = 0; layer < shape.layers; ++layer) {
      pass->append(layer, keys_.data(), values_.data());
      pass->commit(layer);
    }
  }

  /// Seconds of attention in one step, all layers together; the step is dropped.
  double step() {
    auto pass = cache_.begin({});
    double seconds = 0;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      pass->append(layer, keys_.data(), values_.data());
      seconds += seconds_of([&] { pass->attend(layer, queries_.data(), output_.data()); });
    }
    return seconds;
  }
  /// Relative L2 error of layer 0 against attention in double over what the cache exports, rotated
  /// there.
  double error() {
    const int dim = shape_.head_dim;
    auto pass = cache_.begin({});
    pass->append(0, keys_.data(), values_.data());
    pass->attend(0, queries_.data(), output_.data());
    const int tokens = cache_.tokens(0, 0);
    std::vector<float> keys(static_cast<std::size_t>(tokens * shape_.heads * dim));
    std::vector<float> values(keys.size());
    cache_.export_dense(0, keys.data(), values.data());
    test::ReferenceRope rope;
    for (const float frequency : options().rope.inverse_frequencies)
      rope.frequencies.push_back(static_cast<double>(frequency));
    test::ReferenceLayer reference(shape_.query_heads, shape_.heads, dim, dim);
    for (int head = 0; head < shape_.heads; ++head) {
      for (int token = 0; token < tokens; ++token) {
        const std::ptrdiff_t at = (std::ptrdiff_t{token} * shape_.heads + head) * dim;
        std::vector<double> key(keys.data() + at, keys.data() + at + dim);
        if (rotates_) rope.turn(key, token);
        reference.kept(head).push_back(
            {token, key, {values.data() + at, values.data() + at + dim}});
      }
    }
    std::vector<double> wanted;
    for (int head = 0; head < shape_.query_heads; ++head) {
      const float* from = queries_.data() + head * dim;
      std::vector<double> query(from, from + dim);
      if (rotates_) rope.turn(query, tokens - 1);
      const std::vector<float> turned(query.begin(), query.end());
      const auto sight = reference.attend(head, tokens, turned.data());
      wanted.insert(wanted.end(), sight.output.begin(), sight.output.end());
    }
    return test::relative_error(output_.data(), wanted);
  }

 private:
  EigenLowRank<Dense<half>> storage(Part part, int rank) const {
    const LayerRanks ranks{part == Part::values ? shape_.head_dim : rank,
                           part == Part::values || part == Part::both ? rank : shape_.head_dim};
    return {{}, axes(shape_, rotates_), Ranks(static_cast<std::size_t>(shape_.layers), ranks)};
  }
  CacheOptions options() const {
    CacheOptions options{.executor = openmp(kThreads)};
    if (rotates_) {
      options.positions = Positions::unrotated;
      options.rope = Rope::plain(shape_.head_dim, 1e4, Pairing::halves);
    }
    return options;
  }

  Shape shape_;
  bool rotates_;
  BlockPool pool_;
  KVCache<Full, EigenLowRank<Dense<half>>> cache_;
  std::vector<float> keys_, values_, queries_, output_;
};

/// Times by dimension, part and rank, for what is printed at the end.
std::map<int, std::map<Part, std::map<int, double>>>& times() {
  static std::map<int, std::map<Part, std::map<int, double>>> all;
  return all;
}

void low_rank(benchmark::State& state, Part part) {
  Sizes sizes{.query_heads = static_cast<int>(state.range(0)),
              .heads = static_cast<int>(state.range(1)),
              .head_dim = static_cast<int>(state.range(2)),
              .tokens = static_cast<int>(state.range(3))};
  const int rank = static_cast<int>(state.range(4));
  const Shape shape{.layers = std::min(layers_for(sizes), 8),
                    .query_heads = sizes.query_heads,
                    .heads = sizes.heads,
                    .head_dim = sizes.head_dim};
  Case one(shape, part, rank, sizes.tokens);
  const double error = one.error();
  if (!(error <= 1e-4)) {
    state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
    return;
  }
  std::vector<double> seconds;
  for (auto _ : state) {
    (void)stream();  // the processor's cache holds nothing of it
    seconds.push_back(one.step() / shape.layers);
    state.SetIterationTime(seconds.back());
  }
  const double middle = median(seconds);
  times()[sizes.head_dim][part][rank] = middle;
  const auto& whole = times()[sizes.head_dim][Part::values];
  state.counters["ms_layer"] = middle * 1e3;
  state.counters["error"] = error;
  if (whole.contains(sizes.head_dim))
    state.counters["times_as_fast"] = whole.at(sizes.head_dim) / middle;
}

void ranks(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"Q", "H", "D", "T", "r"})
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->Iterations(15);
  for (const auto& [query_heads, heads, dim] : {std::tuple(9, 3, 64), std::tuple(32, 8, 128)}) {
    for (const int eighths : {8, 6, 4, 2})
      bench->Args({query_heads, heads, dim, 16384, dim * eighths / 8});
  }
}

BENCHMARK_CAPTURE(low_rank, values, Part::values)->Apply(ranks);  // first: its full rank is f16
BENCHMARK_CAPTURE(low_rank, keys, Part::keys)->Apply(ranks);
BENCHMARK_CAPTURE(low_rank, both, Part::both)->Apply(ranks);
BENCHMARK_CAPTURE(low_rank, rotated_keys, Part::rotated_keys)->Apply(ranks);

/// Where a line through the reconstructed keys' times meets the time of whole keys.
void print_break_even() {
  for (const auto& [dim, parts] : times()) {
    if (!parts.contains(Part::rotated_keys) || !parts.contains(Part::values)) continue;
    if (!parts.at(Part::values).contains(dim)) continue;
    const double whole = parts.at(Part::values).at(dim);
    const std::map<int, double>& made = parts.at(Part::rotated_keys);
    int best = 0;
    double least = 1e9;
    for (const auto& [rank, seconds] : made) {
      if (rank == dim) continue;  // kept whole
      if (seconds <= whole) best = std::max(best, rank);
      least = std::min(least, seconds);
    }
    std::printf("D = %d: whole keys %.3f ms a layer; reconstructed ", dim, whole * 1e3);
    if (best > 0) {
      std::printf("break even at rank %d\n", best);
    } else {
      std::printf("never break even, %.2f times as long at best\n", least / whole);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  print_break_even();
  return 0;
}
