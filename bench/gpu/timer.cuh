// SPDX-License-Identifier: Apache-2.0
// What the GPU benches time with: events around work on a stream, after the L2 cache was swept, and
// the bandwidths that the device has in the same run.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>

#include "kvast/gpu/launch.cuh"

namespace kvast::bench {

/// Ends the program with CUDA's words.
inline void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

/// Reads memory and keeps nothing of it.
struct ReadAll {
  static constexpr int kThreads = 512;
  const uint4* from = nullptr;
  std::int64_t count = 0;
  unsigned* never = nullptr;

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    unsigned seen = 0;
    const std::int64_t stride = std::int64_t{block.blocks()} * kThreads;
    for (std::int64_t at = std::int64_t{block.index()} * kThreads + block.thread(); at < count;
         at += stride) {
      const uint4 one = from[at];
      seen ^= one.x ^ one.y ^ one.z ^ one.w;
    }
    if (seen == 0x9E3779B9U) *never = seen;
  }
};

/// Device memory that is read before each measurement: what was written would still have to leave
/// the L2 cache within it.
class Flush {
 public:
  static constexpr std::size_t kBytes = std::size_t{256} << 20U;  // no L2 cache is larger
  Flush() {
    must(cudaMalloc(&memory_, kBytes + sizeof(uint4)), "memory to sweep the L2 cache");
    must(cudaMemset(memory_, 1, kBytes + sizeof(uint4)), "memory to sweep the L2 cache");
  }
  ~Flush() { (void)cudaFree(memory_); }
  void sweep(cudaStream_t stream) {
    const ReadAll kernel{memory_, kBytes / sizeof(uint4),
                         reinterpret_cast<unsigned*>(memory_ + kBytes / sizeof(uint4))};
    if (!gpu::launch(kernel, {.blocks = 132 * 16}, stream)) std::exit(1);
  }

 private:
  uint4* memory_ = nullptr;
};

/// Seconds that `work(stream)` takes on the device.
class Timer {
 public:
  Timer() {
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    must(cudaEventCreate(&begin_), "event");
    must(cudaEventCreate(&end_), "event");
  }
  ~Timer() {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(end_);
    (void)cudaStreamDestroy(stream_);
  }
  cudaStream_t stream() const { return stream_; }
  template <class Work>
  double seconds(const Work& work) {
    flush_.sweep(stream_);
    must(cudaEventRecord(begin_, stream_), "event");
    work(stream_);
    must(cudaEventRecord(end_, stream_), "event");
    must(cudaEventSynchronize(end_), "event");
    float milliseconds = 0.0F;
    must(cudaEventElapsedTime(&milliseconds, begin_, end_), "event");
    return static_cast<double>(milliseconds) * 1e-3;
  }
  /// Mean seconds; also the rate of `bytes`, and its share of `roof`.
  template <class Work>
  double run(benchmark::State& state, double bytes, double roof, const Work& work) {
    for (int turn = 0; turn < 3; ++turn) (void)seconds(work);
    double total = 0.0;
    for (auto _ : state) {
      const double taken = seconds(work);
      state.SetIterationTime(taken);
      total += taken;
    }
    const double rate = bytes * static_cast<double>(state.iterations()) / total;
    state.counters["GB/s"] = rate * 1e-9;
    state.counters["share"] = rate / roof;
    return total / static_cast<double>(state.iterations());
  }

 private:
  Flush flush_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// Bytes per second, the best of some runs over 2 GiB.
struct Bandwidth {
  double read = 0.0;
  double copy = 0.0;  ///< bytes read plus bytes written

  static Bandwidth measure(Timer& timer) {
    constexpr std::size_t kBytes = std::size_t{2} << 30U;
    void* from = nullptr;
    void* to = nullptr;
    must(cudaMalloc(&from, kBytes), "memory to read");
    must(cudaMalloc(&to, kBytes), "memory to write");
    must(cudaMemsetAsync(from, 0, kBytes, timer.stream()), "fill");
    Bandwidth best;
    for (int turn = 0; turn < 8; ++turn) {
      const double read = timer.seconds([&](cudaStream_t stream) {
        const ReadAll kernel{static_cast<const uint4*>(from), kBytes / sizeof(uint4),
                             static_cast<unsigned*>(to)};
        if (!gpu::launch(kernel, {.blocks = 132 * 16}, stream)) std::exit(1);
      });
      const double copy = timer.seconds([&](cudaStream_t stream) {
        must(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream), "copy");
      });
      best.read = std::max(best.read, static_cast<double>(kBytes) / read);
      best.copy = std::max(best.copy, 2.0 * static_cast<double>(kBytes) / copy);
    }
    (void)cudaFree(from);
    (void)cudaFree(to);
    return best;
  }
};

}  // namespace kvast::bench
