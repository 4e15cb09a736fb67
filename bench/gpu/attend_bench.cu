// SPDX-License-Identifier: Apache-2.0
// Decode attention over f16 on the device: bytes of keys and values per second, as a share of the
// bandwidth that reading alone has in the same run; without and with a policy's weights. One head
// of each case is checked against naive loops in double before the case is timed.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/benches.cuh"
#include "kvast/gpu/attend_weights.cuh"
#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"

namespace kvast::bench {
namespace {

struct Case {
  Shape shape;
  int batch = 1;
  int context = 4096;

  /// Numbers of so many heads of one token of each sequence.
  std::size_t numbers(int heads, int tokens = 1) const {
    return static_cast<std::size_t>(batch) * static_cast<std::size_t>(tokens) *
           static_cast<std::size_t>(heads) * static_cast<std::size_t>(shape.head_dim);
  }
  double bytes() const {
    return 2.0 * sizeof(half) * static_cast<double>(numbers(shape.heads, context));
  }
  std::string name() const {
    return std::to_string(shape.query_heads) + "/" + std::to_string(shape.heads) + "/" +
           std::to_string(shape.head_dim) + "/batch:" + std::to_string(batch) +
           "/context:" + std::to_string(context);
  }
};

enum class Kind : unsigned { key, value, query };

/// In [-1, 1) and of 11 bits, so that halves hold it exactly; the same on both sides.
KVAST_HD inline float number_at(Kind kind, int sequence, int token, int head, int dim) {
  std::uint64_t bits = static_cast<std::uint64_t>(kind) << 60U |
                       static_cast<std::uint64_t>(sequence) << 44U |
                       static_cast<std::uint64_t>(token) << 20U |
                       static_cast<std::uint64_t>(head) << 10U | static_cast<std::uint64_t>(dim);
  bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
  bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
  return static_cast<float>(static_cast<int>((bits >> 40U) % 2048U) - 1024) / 1024.0F;
}

/// [sequences, tokens, heads, dim] from token `first` on.
struct Fill {
  static constexpr int kThreads = 256;
  half* to = nullptr;
  Kind kind = Kind::key;
  int tokens = 0;
  int first = 0;
  int heads = 0;
  int dim = 0;
  std::int64_t count = 0;

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const std::int64_t stride = std::int64_t{block.blocks()} * kThreads;
    for (std::int64_t at = std::int64_t{block.index()} * kThreads + block.thread(); at < count;
         at += stride) {
      const std::int64_t row = at / dim / heads;
      const float number =
          number_at(kind, static_cast<int>(row / tokens), first + static_cast<int>(row % tokens),
                    static_cast<int>(at / dim % heads), static_cast<int>(at % dim));
      to[at] = to_half(kind == Kind::query ? 4.0F * number : number);
    }
  }
};

template <class Value>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) {
    void* memory = nullptr;
    must(cudaMalloc(&memory, count * sizeof(Value)), "array");
    memory_ = static_cast<Value*>(memory);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { (void)cudaFree(memory_); }
  Value* data() const { return memory_; }

 private:
  Value* memory_ = nullptr;
};

void check(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void fill(const Case& one, Kind kind, int heads, int tokens, int first, half* to) {
  const Fill kernel{.to = to,
                    .kind = kind,
                    .tokens = tokens,
                    .first = first,
                    .heads = heads,
                    .dim = one.shape.head_dim,
                    .count = static_cast<std::int64_t>(one.numbers(heads, tokens))};
  check(gpu::launch(kernel, {.blocks = 2048}, timer().stream()));
}

/// A cache whose last token is still to come, and the tensors of that token.
class Decoder {
 public:
  using Cache = KVCache<Full, OnGpu<Dense<half>>>;

  explicit Decoder(const Case& one)
      : one_(one),
        cache_(one.shape, {}, {}, pool_, {.sequences = one.batch}),
        keys_(one.numbers(one.shape.heads, kChunk)),
        values_(one.numbers(one.shape.heads, kChunk)),
        queries_(one.numbers(one.shape.query_heads)),
        output_(one.numbers(one.shape.query_heads)) {
    for (int first = 0; first < one.context - 1; first += kChunk) {
      Cache::Pass pass = begin(first, std::min(kChunk, one.context - 1 - first));
      check(pass.commit());
    }
    fill(one, Kind::query, one.shape.query_heads, 1, one.context - 1, queries_.data());
  }
  /// The pass of the last token, appended.
  Cache::Pass last() { return begin(one_.context - 1, 1); }

  gpu::Pool<gpu::CudaDevice>& pool() { return pool_; }
  const Cache& cache() const { return cache_; }
  const half* queries() const { return queries_.data(); }
  half* output() const { return output_.data(); }

 private:
  static constexpr int kChunk = 1024;  ///< tokens of a sequence that arrive together

  Cache::Pass begin(int first, int tokens) {
    fill(one_, Kind::key, one_.shape.heads, tokens, first, keys_.data());
    fill(one_, Kind::value, one_.shape.heads, tokens, first, values_.data());
    Result<Cache::Pass> pass = cache_.begin({.tokens = tokens});
    if (!pass) check(pass.status());
    check(pass->append(0, keys_.data(), values_.data()));
    return std::move(*pass);
  }

  Case one_;
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = timer().stream()}};
  Cache cache_;
  DeviceArray<half> keys_;
  DeviceArray<half> values_;
  DeviceArray<half> queries_;
  DeviceArray<half> output_;
};

/// Relative error of the last sequence's last head.
double error_of(const Case& one, const half* output) {
  const int group = one.shape.group();
  const int dim = one.shape.head_dim;
  const int sequence = one.batch - 1;
  const int head = one.shape.heads - 1;
  std::vector<half> got(static_cast<std::size_t>(group * dim));
  must(cudaMemcpy(got.data(), output + one.numbers(one.shape.query_heads) - got.size(),
                  got.size() * sizeof(half), cudaMemcpyDefault),
       "output");
  std::vector<double> queries(got.size());
  for (std::size_t at = 0; at < queries.size(); ++at) {
    const int member = static_cast<int>(at) / dim;
    queries[at] = 4.0 / std::sqrt(dim) *
                  static_cast<double>(number_at(Kind::query, sequence, one.context - 1,
                                                head * group + member, static_cast<int>(at) % dim));
  }
  std::vector<double> sums(static_cast<std::size_t>(group));
  std::vector<double> totals(got.size());
  std::vector<double> key(static_cast<std::size_t>(dim));
  std::vector<double> value(static_cast<std::size_t>(dim));
  for (int token = 0; token < one.context; ++token) {
    for (std::size_t at = 0; at < key.size(); ++at) {
      const int feature = static_cast<int>(at);
      key[at] = static_cast<double>(number_at(Kind::key, sequence, token, head, feature));
      value[at] = static_cast<double>(number_at(Kind::value, sequence, token, head, feature));
    }
    for (std::size_t member = 0; member < sums.size(); ++member) {
      double logit = 0.0;
      for (std::size_t at = 0; at < key.size(); ++at)
        logit += key[at] * queries[member * key.size() + at];
      const double weight = std::exp(logit);
      sums[member] += weight;
      for (std::size_t at = 0; at < key.size(); ++at)
        totals[member * key.size() + at] += weight * value[at];
    }
  }
  double apart = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < got.size(); ++at) {
    const double wanted = totals[at] / sums[at / key.size()];
    apart += std::pow(static_cast<double>(to_float(got[at])) - wanted, 2.0);
    norm += wanted * wanted;
  }
  return std::sqrt(apart / norm);
}

/// Attends and shows the weights to a policy that writes them down.
void time_weights(benchmark::State& state, const Case& one, Decoder& decoder) {
  const Shape& shape = one.shape;
  const int blocks = (one.context + kBlockTokens - 1) / kBlockTokens;
  const int members = (shape.group() + 1) / 2 * 2;
  const auto lines = static_cast<std::size_t>(one.batch) * static_cast<std::size_t>(shape.heads) *
                     static_cast<std::size_t>(blocks);
  const DeviceArray<std::uint16_t> below(lines * kBlockTokens * static_cast<std::size_t>(members));
  const DeviceArray<float> maxima(lines * static_cast<std::size_t>(members));
  const DeviceArray<float> weights(lines * kBlockTokens);
  const DeviceArray<float> lse(static_cast<std::size_t>(one.batch * shape.query_heads));
  gpu::AttendRunner<F16, gpu::CudaDevice> attention(decoder.pool());
  gpu::AttendCall call{.layer = decoder.cache().view(0)};
  call.queries = gpu::Tensor(decoder.queries())
                     .checked("queries", shape.query_heads, shape.head_dim, Caller::here());
  call.output = gpu::OutputTensor(decoder.output())
                    .checked("output", shape.query_heads, shape.head_dim, Caller::here());
  call.group = shape.group();
  call.options.log_sum_exp = lse.data();
  call.rules = gpu::LogitRules::of(1.0F / std::sqrt(static_cast<float>(shape.head_dim)), 0.0F);
  call.saved = {
      .below = below.data(), .maxima = maxima.data(), .blocks = blocks, .members = members};
  timer().run(state, one.bytes(), bandwidth().read, [&](cudaStream_t stream) {
    check(attention.run(call, 1));
    const gpu::SavedWeights<gpu::WriteWeights> kernel{
        .call = call, .sink = {.to = weights.data(), .blocks = blocks}};
    check(gpu::launch(kernel, {.blocks = 8 * gpu::CudaDevice::processors()}, stream));
  });
  must(cudaStreamSynchronize(timer().stream()), "weights");
}

void time_attend(benchmark::State& state, const Case& one, bool weighs) {
  std::size_t available = 0;
  std::size_t all = 0;
  must(cudaMemGetInfo(&available, &all), "memory");
  if (1.3 * one.bytes() + 4e9 > static_cast<double>(available)) {
    state.SkipWithError("does not fit the device's memory");
    return;
  }
  Decoder decoder(one);
  Decoder::Cache::Pass pass = decoder.last();
  check(pass.attend(0, decoder.queries(), decoder.output()));
  must(cudaStreamSynchronize(timer().stream()), "attend");
  const double error = error_of(one, decoder.output());
  if (!(error <= 2e-3)) {
    state.SkipWithError("the answer is wrong: nothing was timed");
    return;
  }
  if (weighs) {
    time_weights(state, one, decoder);
  } else {
    timer().run(state, one.bytes(), bandwidth().read,
                [&](cudaStream_t) { check(pass.attend(0, decoder.queries(), decoder.output())); });
  }
  state.counters["error"] = error;
}

}  // namespace

void add_attend_benches() {
  for (const Shape& shape : {Shape{.query_heads = 32, .heads = 8, .head_dim = 128},
                             Shape{.query_heads = 64, .heads = 8, .head_dim = 128},
                             Shape{.query_heads = 9, .heads = 3, .head_dim = 64}}) {
    for (const int batch : {1, 16, 64}) {
      for (const int context : {4096, 16384, 32768, 131072}) {
        const Case one{shape, batch, context};
        for (const bool weighs : {false, true}) {
          const std::string name = (weighs ? "weights/f16/" : "attend/f16/") + one.name();
          benchmark::RegisterBenchmark(
              name.c_str(),
              [one, weighs](benchmark::State& state) { time_attend(state, one, weighs); })
              ->UseManualTime()
              ->Unit(benchmark::kMicrosecond)
              ->Iterations(20);
        }
      }
    }
  }
}

}  // namespace kvast::bench
