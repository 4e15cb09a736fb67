// SPDX-License-Identifier: Apache-2.0
// What the benches of attention time: a cache of numbers that both sides know, and whether its
// answer is right.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/benches.cuh"
#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"

namespace kvast::bench {

struct Case {
  Shape shape;
  int batch = 1;
  int context = 4096;

  /// Numbers of so many heads of one token of each sequence.
  std::size_t numbers(int heads, int tokens = 1) const {
    return static_cast<std::size_t>(batch) * static_cast<std::size_t>(tokens) *
           static_cast<std::size_t>(heads) * static_cast<std::size_t>(shape.head_dim);
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

inline void check(const Status& status) {
  if (status) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

inline void fill(const Case& one, Kind kind, int heads, int tokens, int first, half* to) {
  const Fill kernel{.to = to,
                    .kind = kind,
                    .tokens = tokens,
                    .first = first,
                    .heads = heads,
                    .dim = one.shape.head_dim,
                    .count = static_cast<std::int64_t>(one.numbers(heads, tokens))};
  check(gpu::launch(kernel, {.blocks = 2048}, timer().stream()));
}

/// A cache whose last tokens are still to come, and the tensors of these.
template <class S>
class Decoder {
 public:
  using Cache = KVCache<Full, OnGpu<S>>;
  using Pass = typename Cache::Pass;
  using Kept = typename gpu::DeviceFormats<S>::Kept;

  /// `tokens` of a sequence come last; all but them are committed.
  explicit Decoder(const Case& one, int tokens = 1)
      : one_(one),
        tokens_(tokens),
        cache_(one.shape, {}, {S{}}, pool_, {.sequences = one.batch}),
        keys_(one.numbers(one.shape.heads, std::max(kChunk, tokens))),
        values_(one.numbers(one.shape.heads, std::max(kChunk, tokens))),
        queries_(one.numbers(one.shape.query_heads, tokens)),
        output_(one.numbers(one.shape.query_heads, tokens)) {
    const int before = one.context - tokens;
    for (int first = 0; first < before; first += kChunk) {
      Pass pass = begin(first, std::min(kChunk, before - first));
      check(pass.commit());
    }
    fill(one, Kind::query, one.shape.query_heads, tokens, before, queries_.data());
  }
  /// The pass of the last tokens, appended.
  Pass last() { return begin(one_.context - tokens_, tokens_); }
  /// One more pass, of `tokens` tokens from position `first` on.
  Pass begin(int first, int tokens) {
    fill(one_, Kind::key, one_.shape.heads, tokens, first, keys_.data());
    fill(one_, Kind::value, one_.shape.heads, tokens, first, values_.data());
    Result<Pass> pass = cache_.begin({.tokens = tokens});
    if (!pass) check(pass.status());
    check(pass->append(0, keys_.data(), values_.data()));
    return std::move(*pass);
  }
  void attend(Pass& pass) { check(pass.attend(0, queries_.data(), output_.data())); }

  /// What an attend of the last pass reads of keys and values.
  double bytes() const {
    int sealed = 0;
    const gpu::LayerFormat format = gpu::DeviceFormats<S>::of(S{}, 0);
    if (format.coded) sealed = std::max(one_.context - tokens_ - format.residual, 0) / kBlockTokens;
    const int waiting = blocks_of(one_.context - sealed * kBlockTokens);
    const gpu::LayerView& view = cache_.view(0);
    const double of_head =
        static_cast<double>(view.coded_keys.bytes + view.coded_values.bytes) * sealed +
        static_cast<double>(view.dense_keys.bytes + view.dense_values.bytes) * waiting;
    return of_head * one_.batch * one_.shape.heads;
  }
  gpu::Pool<gpu::CudaDevice>& pool() { return pool_; }
  Cache& cache() { return cache_; }
  const Case& settings() const { return one_; }
  const half* queries() const { return queries_.data(); }
  half* output() const { return output_.data(); }
  /// Of the output: the last query's heads of the last kv head.
  const half* last_row() const {
    return output_.data() + one_.numbers(one_.shape.query_heads, tokens_) -
           static_cast<std::ptrdiff_t>(one_.shape.group()) * one_.shape.head_dim;
  }

 private:
  static constexpr int kChunk = 1024;  ///< tokens of a sequence that arrive together

  Case one_;
  int tokens_;
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = timer().stream()}};
  Cache cache_;
  DeviceArray<half> keys_;
  DeviceArray<half> values_;
  DeviceArray<half> queries_;
  DeviceArray<half> output_;
};

/// Relative error of the last sequence's last head, of the last query, beside naive loops in double
/// over what the cache decodes to. `mean_weights`: of the tokens, over the group's queries.
template <class S>
double error_of(Decoder<S>& decoder, std::vector<double>* mean_weights = nullptr) {
  const Case& one = decoder.settings();
  const Shape& shape = one.shape;
  const auto dim = static_cast<std::size_t>(shape.head_dim);
  const auto context = static_cast<std::size_t>(one.context);
  const auto group = static_cast<std::size_t>(shape.group());
  const std::size_t row = dim * static_cast<std::size_t>(shape.heads);
  const DeviceArray<float> keys_of_all(row * context);
  const DeviceArray<float> values_of_all(row * context);
  check(decoder.cache().export_dense(one.batch - 1, 0, one.context, keys_of_all.data(),
                                     values_of_all.data()));
  must(cudaStreamSynchronize(timer().stream()), "export");
  std::vector<float> keys(dim * context);
  std::vector<float> values(keys.size());
  const std::size_t last = row - dim;
  const auto to_host = [&](std::vector<float>& to, const float* from) {
    must(cudaMemcpy2D(to.data(), dim * sizeof(float), from + last, row * sizeof(float),
                      dim * sizeof(float), context, cudaMemcpyDefault),
         "decoded");
  };
  to_host(keys, keys_of_all.data());
  to_host(values, values_of_all.data());
  std::vector<half> got(group * dim);
  must(cudaMemcpy(got.data(), decoder.last_row(), got.size() * sizeof(half), cudaMemcpyDefault),
       "output");
  double apart = 0.0;
  double norm = 0.0;
  for (std::size_t member = 0; member < group; ++member) {
    double sum = 0.0;
    std::vector<double> totals(dim);
    std::vector<double> query(dim);
    std::vector<double> weights;
    for (std::size_t at = 0; at < dim; ++at)
      query[at] = number_at(Kind::query, one.batch - 1, one.context - 1,
                            shape.query_heads - shape.group() + static_cast<int>(member),
                            static_cast<int>(at));
    for (std::size_t token = 0; token < context; ++token) {
      double logit = 0.0;
      for (std::size_t at = 0; at < dim; ++at)
        logit += static_cast<double>(keys[token * dim + at]) * query[at];
      const double weight = std::exp(4.0 / std::sqrt(static_cast<double>(dim)) * logit);
      sum += weight;
      weights.push_back(weight);
      for (std::size_t at = 0; at < dim; ++at)
        totals[at] += weight * static_cast<double>(values[token * dim + at]);
    }
    if (mean_weights != nullptr) {
      mean_weights->resize(context);
      for (std::size_t token = 0; token < context; ++token)
        (*mean_weights)[token] += weights[token] / sum / static_cast<double>(group);
    }
    for (std::size_t at = 0; at < dim; ++at) {
      const double wanted = totals[at] / sum;
      apart += std::pow(static_cast<double>(to_float(got[member * dim + at])) - wanted, 2.0);
      norm += wanted * wanted;
    }
  }
  return std::sqrt(apart / norm);
}

}  // namespace kvast::bench
