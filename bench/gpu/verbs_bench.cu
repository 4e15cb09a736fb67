// SPDX-License-Identifier: Apache-2.0
// append, commit, export, quantize and dequantize on the device, as shares of the bandwidth that
// the same run measured. Shapes are those of Llama 3 8B and SmolLM2.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>

#include "bench/gpu/benches.cuh"
#include "kvast/gpu/kv_cache.cuh"
#include "kvast/gpu/quantize.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"

namespace kvast::bench {
namespace {

/// Device memory of halves that are small numbers.
class Halves {
 public:
  explicit Halves(std::size_t count) {
    must(cudaMalloc(&memory_, count * sizeof(half)), "tensor");
    must(cudaMemset(memory_, 0x2C, count * sizeof(half)), "tensor");  // 0.065
  }
  ~Halves() { (void)cudaFree(memory_); }
  half* data() const { return static_cast<half*>(memory_); }

 private:
  void* memory_ = nullptr;
};

template <class Policy, class S>
void decode_steps(benchmark::State& state, Policy policy, S storage, int context) {
  const int batch = static_cast<int>(state.range(0));
  const Shape shape{.layers = 32, .query_heads = 32, .heads = 8, .head_dim = 128};
  gpu::Pool<gpu::CudaDevice> pool({.stream = timer().stream()});
  KVCache<Policy, OnGpu<S>> cache(shape, policy, {storage}, pool, {.sequences = batch});
  const auto step = [&](int tokens, const Halves& rows) {
    auto pass = cache.begin({.tokens = tokens});
    bool complete = static_cast<bool>(pass);
    for (int layer = 0; layer < shape.layers && complete; ++layer)
      complete = static_cast<bool>(pass->append(layer, rows.data(), rows.data()));
    if (!complete || !pass->commit()) std::exit(1);
  };
  {
    const Halves rows(static_cast<std::size_t>(batch) * static_cast<std::size_t>(context) * 8 *
                      128);
    step(context, rows);
    must(cudaStreamSynchronize(timer().stream()), "prompt");
  }
  const Halves rows(static_cast<std::size_t>(batch) * 8 * 128);
  const double bytes = 2.0 * 2.0 * 2.0 * 32.0 * 8.0 * 128.0 * batch;  // read and written, K and V
  timer().run(state, bytes, bandwidth().copy, [&](cudaStream_t) { step(1, rows); });
}

template <class Format, gpu::Part kPart>
void quantize_tokens(benchmark::State& state) {
  constexpr int kTokens = 32768;
  constexpr int kHeads = 8;
  constexpr int kDim = 128;
  const Halves from(std::size_t{kTokens} * kHeads * kDim);
  const auto bytes = gpu::quantized_bytes<Format, kPart>(kTokens, kHeads, kDim);
  void* codes = nullptr;
  must(cudaMalloc(&codes, static_cast<std::size_t>(bytes)), "codes");
  const bool back = state.range(0) != 0;
  timer().run(state, 2.0 * kTokens * kHeads * kDim + static_cast<double>(bytes), bandwidth().copy,
              [&](cudaStream_t stream) {
                auto* to = static_cast<std::byte*>(codes);
                const bool complete =
                    back ? static_cast<bool>(gpu::dequantize<gpu::CudaDevice, Format, kPart>(
                               to, kTokens, kHeads, kDim, from.data(), stream))
                         : static_cast<bool>(gpu::quantize<gpu::CudaDevice, Format, kPart>(
                               from.data(), kTokens, kHeads, kDim, to, stream));
                if (!complete) std::exit(1);
              });
  (void)cudaFree(codes);
}

void add_benches() {
  const auto timed = [](const std::string& name, auto body) {
    return benchmark::RegisterBenchmark(name.c_str(), body)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  };
  timed("step/full/f16/32/8/128",
        [](benchmark::State& state) { decode_steps(state, Full{}, Dense<half>{}, 1024); })
      ->Arg(1)
      ->Arg(16)
      ->Arg(64);
  timed("step/streaming/kivi4/32/8/128",
        [](benchmark::State& state) {
          decode_steps(state, StreamingLLM{.recent = 1020}, Kivi<4>{}, 1024);
        })
      ->Arg(1)
      ->Arg(16)
      ->Arg(64);
  timed("quantize/int4/keys", quantize_tokens<Int<4>, gpu::Part::keys>)->Arg(0)->Arg(1);
  timed("quantize/int4/values", quantize_tokens<Int<4>, gpu::Part::values>)->Arg(0)->Arg(1);
}

}  // namespace
}  // namespace kvast::bench

int main(int arguments, char** values) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("bench-gpu: skipped, no CUDA device");
    return std::getenv("KVAST_REQUIRE_GPU") == nullptr ? 0 : 1;
  }
  const kvast::bench::Bandwidth& measured = kvast::bench::bandwidth();
  benchmark::AddCustomContext("read_GBps", std::to_string(measured.read * 1e-9));
  benchmark::AddCustomContext("copy_GBps", std::to_string(measured.copy * 1e-9));
  kvast::bench::add_benches();
  kvast::bench::add_attend_benches();
  kvast::bench::add_policy_benches();
  benchmark::Initialize(&arguments, values);
  benchmark::RunSpecifiedBenchmarks();
  return kvast::bench::wrong_answers == 0 ? 0 : 1;
}
