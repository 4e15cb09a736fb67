// SPDX-License-Identifier: Apache-2.0
// Clocks, and the roof: how fast this machine's threads read memory, measured in the same run as
// what is compared with it.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <vector>

#include "kvast/host/openmp.h"

namespace kvast::bench {

inline constexpr int kThreads = 2;

/// What `body` takes.
template <class Body>
double seconds_of(Body&& body) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Of an even number, the mean of the two in the middle.
inline double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  const std::size_t half = numbers.size() / 2;
  return numbers.size() % 2 != 0 ? numbers[half] : (numbers[half - 1] + numbers[half]) / 2;
}

/// `kThreads` threads sum a buffer of 512 MiB. Bytes per second; afterwards no processor's cache
/// holds anything else.
inline double stream() {
  static const std::vector<float> buffer(std::size_t{1} << 27, 1.0F);
  constexpr std::size_t kChunk = std::size_t{1} << 16;
  const int chunks = static_cast<int>(buffer.size() / kChunk);
  std::vector<float> sums(static_cast<std::size_t>(chunks));
  const double seconds = seconds_of([&] {
    openmp(kThreads).parallel_for(chunks, [&](int chunk) {
      float lanes[64] = {};
      const float* from = buffer.data() + static_cast<std::size_t>(chunk) * kChunk;
      for (std::size_t at = 0; at < kChunk; at += 64) {
        for (std::size_t lane = 0; lane < 64; ++lane) lanes[lane] += from[at + lane];
      }
      float sum = 0;
      for (const float lane : lanes) sum += lane;
      sums[static_cast<std::size_t>(chunk)] = sum;
    });
  });
  if (sums.back() != static_cast<float>(kChunk)) std::printf("stream: wrong sum\n");
  return static_cast<double>(buffer.size() * sizeof(float)) / seconds;
}

/// Median of seven. The shared machines that this runs on change speed within seconds: measure
/// close to what is compared.
inline double streaming_bandwidth() {
  std::vector<double> rates;
  for (int repeat = 0; repeat < 7; ++repeat) rates.push_back(stream());
  return median(rates);
}

/// The timed part of a bench's iterations, and the bytes that it moved.
class Meter {
 public:
  explicit Meter(benchmark::State& state) : state_(state), roof_(streaming_bandwidth()) {}

  /// One iteration that was timed elsewhere.
  void add(double seconds, double bytes) {
    state_.SetIterationTime(seconds);
    seconds_ += seconds;
    bytes_ += bytes;
  }
  /// One iteration.
  template <class Body>
  void time(double bytes, Body&& body) {
    add(seconds_of(body), bytes);
  }
  double seconds() const { return seconds_; }

  /// Bytes per second, and their share of the streaming bandwidth, measured before and after.
  void report() {
    const double roof = (roof_ + streaming_bandwidth()) / 2;
    state_.SetBytesProcessed(static_cast<std::int64_t>(bytes_));
    state_.counters["stream_GB/s"] = roof / 1e9;
    state_.counters["of_stream"] = bytes_ / seconds_ / roof;
  }

 private:
  benchmark::State& state_;
  double roof_;
  double seconds_ = 0;
  double bytes_ = 0;
};

}  // namespace kvast::bench
