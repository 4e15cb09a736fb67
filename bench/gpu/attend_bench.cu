// SPDX-License-Identifier: Apache-2.0
// Attention on the device over f16 and over codes: bytes of keys and values per second, as a share
// of the bandwidth that reading alone has in the same run, and the time as a part of f16's. Decode
// without and with a policy's weights, a chunk of a prompt over a cache, sealing beside the attends
// between two seals, and from which length on a storage is faster than f16. One head of each case
// of attention is checked against naive loops in double before it is timed, and of weights after.
#include <map>

#include "bench/gpu/decoder.cuh"
#include "kvast/gpu/attend_weights.cuh"

namespace kvast::bench {
namespace {

/// Seconds of this run's cases, by name.
std::map<std::string, double>& times() {
  static std::map<std::string, double> all;
  return all;
}

/// False, and said so, where the device has no room for the case in f16.
bool fits(benchmark::State& state, const Case& one) {
  std::size_t available = 0;
  std::size_t all = 0;
  must(cudaMemGetInfo(&available, &all), "memory");
  const double bytes =
      2.0 * sizeof(half) * static_cast<double>(one.numbers(one.shape.heads, one.context));
  const double decoded = 4.0 / sizeof(half) * bytes / one.batch;  // for the check
  if (1.3 * bytes + decoded + 4e9 <= static_cast<double>(available)) return true;
  state.SkipWithError("does not fit the device's memory");
  return false;
}
template <class S>
bool is_right(benchmark::State& state, Decoder<S>& decoder, typename Decoder<S>::Pass& pass,
              std::vector<double>* mean_weights = nullptr) {
  decoder.attend(pass);
  must(cudaStreamSynchronize(timer().stream()), "attend");
  const double error = error_of(decoder, mean_weights);
  state.counters["error"] = error;
  if (error <= 2e-3) return true;
  tell_wrong(state);
  return false;
}
/// Times are kept as `name`, and shown beside those of the same case in f16.
void compare(benchmark::State& state, const std::string& kind, const std::string& storage,
             const std::string& one, double seconds) {
  times()[kind + storage + one] = seconds;
  const auto f16 = times().find(kind + "f16" + one);
  if (f16 != times().end()) state.counters["of_f16"] = seconds / f16->second;
}

/// Whether the last head's weights, in order of slots, which is that of tokens here, are `wanted`.
bool weights_are(const std::vector<double>& wanted, const float* of_all, std::size_t last) {
  std::vector<float> got(wanted.size());
  must(cudaMemcpy(got.data(), of_all + last, got.size() * sizeof(float), cudaMemcpyDefault),
       "weights");
  double apart = 0.0;
  double norm = 0.0;
  for (std::size_t token = 0; token < wanted.size(); ++token) {
    apart += std::pow(static_cast<double>(got[token]) - wanted[token], 2.0);
    norm += wanted[token] * wanted[token];
  }
  return std::sqrt(apart / norm) <= 1e-2;
}

/// Attends and shows the weights to a policy that writes them down, which must be `wanted`.
template <class S>
double time_weights(benchmark::State& state, Decoder<S>& decoder,
                    const std::vector<double>& wanted) {
  using Kernel = gpu::SavedWeights<gpu::WriteWeights>;
  const Case& one = decoder.settings();
  const Shape& shape = one.shape;
  const int blocks = (one.context + kBlockTokens - 1) / kBlockTokens;
  const int members = (shape.group() + 1) / 2 * 2;
  const auto lines = static_cast<std::size_t>(one.batch) * static_cast<std::size_t>(shape.heads) *
                     static_cast<std::size_t>(blocks);
  const DeviceArray<std::uint16_t> below(lines * kBlockTokens * static_cast<std::size_t>(members));
  const DeviceArray<float> maxima(lines * static_cast<std::size_t>(members));
  const DeviceArray<float> weights(lines * kBlockTokens);
  const DeviceArray<float> lse(static_cast<std::size_t>(one.batch * shape.query_heads));
  gpu::AttendRunner<typename Decoder<S>::Kept, gpu::CudaDevice> attention(decoder.pool());
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
  gpu::Grid grid{};
  check(attention.template fill_device<Kernel>(grid));
  const double seconds =
      timer().run(state, decoder.bytes(), bandwidth().read, [&](cudaStream_t stream) {
        check(attention.run(call, 1));
        const Kernel kernel{.call = call, .sink = {.to = weights.data(), .blocks = blocks}};
        check(gpu::launch(kernel, grid, stream));
      });
  must(cudaStreamSynchronize(timer().stream()), "weights");
  const std::size_t each = static_cast<std::size_t>(blocks) * kBlockTokens;
  if (!weights_are(wanted, weights.data(), lines / static_cast<std::size_t>(blocks) * each - each))
    tell_wrong(state);
  return seconds;
}

/// The newest `tokens` of each sequence, over the cache that is there already.
template <class S>
void time_attend(benchmark::State& state, const Case& one, const std::string& kind,
                 const std::string& storage, int tokens) {
  if (!fits(state, one)) return;
  Decoder<S> decoder(one, tokens);
  auto pass = decoder.last();
  if (!is_right(state, decoder, pass)) return;
  const double seconds = timer().run(state, decoder.bytes(), bandwidth().read,
                                     [&](cudaStream_t) { decoder.attend(pass); });
  compare(state, kind, storage, one.name(), seconds);
}

/// Beside the same case without weights.
template <class S>
void time_weighed(benchmark::State& state, const Case& one, const std::string& storage) {
  if (!fits(state, one)) return;
  Decoder<S> decoder(one);
  auto pass = decoder.last();
  std::vector<double> mean_weights;
  if (!is_right(state, decoder, pass, &mean_weights)) return;
  const double seconds = time_weights(state, decoder, mean_weights);
  const auto alone = times().find("attend/" + storage + one.name());
  if (alone != times().end()) state.counters["added"] = seconds / alone->second - 1.0;
}

/// The commits from one seal to the next, the last of which seals a block of every head, beside as
/// many attends.
template <class S>
void time_seal(benchmark::State& state, const Case& one, const std::string& storage) {
  if (!fits(state, one)) return;
  Decoder<S> decoder(one);
  int length = one.context - 1;
  double total = 0.0;
  for (auto _ : state) {
    double seconds = 0.0;
    for (int token = 0; token < kBlockTokens; ++token) {
      auto pass = decoder.begin(length++, 1);
      seconds += timer().seconds([&](cudaStream_t) { check(pass.commit()); });
    }
    state.SetIterationTime(seconds);
    total += seconds;
  }
  const auto attend = times().find("attend/" + storage + one.name());
  if (attend == times().end()) return;
  const double each = total / static_cast<double>(state.iterations());
  state.counters["of_attends"] = each / (kBlockTokens * attend->second);
}

template <class S>
double median_seconds(const Case& one) {
  Decoder<S> decoder(one);
  auto pass = decoder.last();
  std::vector<double> all;
  for (int turn = 0; turn < 24; ++turn) {
    const double seconds = timer().seconds([&](cudaStream_t) { decoder.attend(pass); });
    if (turn >= 3) all.push_back(seconds);
  }
  std::nth_element(all.begin(), all.begin() + 10, all.end());
  return all[10];
}

/// The shortest context, in doublings of 256, from which on a storage is never slower than f16.
template <class S>
void find_break_even(benchmark::State& state, Case one) {
  for (auto _ : state) {
    int tokens = 0;  // none found
    double last = 0.0;
    for (one.context = 32768; one.context >= 256; one.context /= 2) {
      last = median_seconds<S>(one) / median_seconds<Dense<half>>(one);
      if (last > 1.0) break;
      tokens = one.context;
    }
    state.SetIterationTime(1e-6);
    state.counters["tokens"] = tokens;
    state.counters["slower"] = last;
  }
}

constexpr Shape kEightHeads{.query_heads = 32, .heads = 8, .head_dim = 128};

benchmark::internal::Benchmark* timed(const std::string& name, int iterations, auto body) {
  return benchmark::RegisterBenchmark(name.c_str(), body)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Iterations(iterations);
}

template <class S>
void add_storage(const std::string& storage) {
  for (const Shape& shape : {kEightHeads, Shape{.query_heads = 64, .heads = 8, .head_dim = 128},
                             Shape{.query_heads = 9, .heads = 3, .head_dim = 64}}) {
    for (const int batch : {1, 16, 64}) {
      for (const int context : {4096, 16384, 32768, 131072}) {
        const Case one{shape, batch, context};
        timed("attend/" + storage + "/" + one.name(), 20,
              [=](benchmark::State& state) { time_attend<S>(state, one, "attend/", storage, 1); });
        timed("weights/" + storage + "/" + one.name(), 20,
              [=](benchmark::State& state) { time_weighed<S>(state, one, storage); });
      }
    }
  }
  for (const int query_heads : {32, 64}) {
    for (const int batch : {1, 16}) {
      for (const int context : {4096, 32768}) {
        const Case one{{.query_heads = query_heads, .heads = 8, .head_dim = 128}, batch, context};
        timed("prefill/" + storage + "/" + one.name(), 20, [=](benchmark::State& state) {
          time_attend<S>(state, one, "prefill/", storage, 512);
        });
      }
    }
  }
  if constexpr (gpu::DeviceFormats<S>::codes) {
    for (const int batch : {1, 16}) {
      const Case one{kEightHeads, batch, 32768};
      timed("seal/" + storage + "/" + one.name(), 20,
            [=](benchmark::State& state) { time_seal<S>(state, one, storage); });
      const Case any{kEightHeads, batch, 0};
      timed("break_even/" + storage + "/32/8/128/batch:" + std::to_string(batch), 1,
            [=](benchmark::State& state) { find_break_even<S>(state, any); });
    }
  }
}

}  // namespace

void add_attend_benches() {
  add_storage<Dense<half>>("f16");  // first: the others are compared with it
  add_storage<Int8>("int8");
  add_storage<Kivi<4>>("kivi4");
  add_storage<Kivi<2>>("kivi2");
  add_storage<Kivi<4, 2>>("kivi4-2");
  add_storage<Float8<E4M3>>("fp8");
}

}  // namespace kvast::bench
