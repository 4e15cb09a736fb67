// SPDX-License-Identifier: Apache-2.0
// The roof: how fast this machine's threads read memory, measured in the same run as what is
// compared with it.
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

/// Bytes per second of `kThreads` threads that sum a buffer of 512 MiB, median of seven. The shared
/// machines that this runs on change speed within seconds: measure close to what is compared.
inline double streaming_bandwidth() {
  static const std::vector<float> buffer(std::size_t{1} << 27, 1.0F);
  constexpr std::size_t kChunk = std::size_t{1} << 16;
  const int chunks = static_cast<int>(buffer.size() / kChunk);
  std::vector<double> rates;
  std::vector<float> sums(static_cast<std::size_t>(chunks));
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
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
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (sums.back() != static_cast<float>(kChunk)) std::printf("streaming_bandwidth: wrong sum\n");
    rates.push_back(static_cast<double>(buffer.size() * sizeof(float)) / seconds);
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

/// Bytes per second, and their share of the streaming bandwidth, measured now.
inline void report_bytes(benchmark::State& state, double bytes, double seconds) {
  const double roof = streaming_bandwidth();
  state.SetBytesProcessed(static_cast<std::int64_t>(bytes));
  state.counters["stream_GB/s"] = roof / 1e9;
  state.counters["of_stream"] = bytes / seconds / roof;
}

}  // namespace kvast::bench
