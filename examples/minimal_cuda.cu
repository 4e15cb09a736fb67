// SPDX-License-Identifier: Apache-2.0
// The shortest use on a GPU: a batch of two sequences decodes 1,000 tokens; 512 are kept per head,
// all but the newest in 4 bits. Nothing waits for the device but the last line.
#include <kvast/policy/h2o.h>
#include <kvast/gpu/kv_cache.cuh>

#include <cstdio>

int main() {
  using namespace kvast;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  constexpr int kBatch = 2;
  const Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 64};
  cudaStream_t stream = nullptr;
  float *keys = nullptr, *values = nullptr, *queries = nullptr, *output = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) return 1;
  for (float** tensor : {&keys, &values, &queries, &output}) {  // your model's projections
    if (cudaMalloc(tensor, kBatch * 4 * 64 * sizeof(float)) != cudaSuccess) return 1;
    if (cudaMemset(*tensor, 0, kBatch * 4 * 64 * sizeof(float)) != cudaSuccess) return 1;
  }
  gpu::Pool<gpu::CudaDevice> pool({.stream = stream});
  KVCache<H2O, OnGpu<Kivi<4>>> cache(shape, {.heavy = 256, .recent = 256}, {}, pool,
                                     {.sequences = kBatch});
  for (int token = 0; token < 1000; ++token) {
    auto pass = cache.begin();
    if (!pass) return 1;  // the device's memory is exhausted; the cache is as it was
    for (int layer = 0; layer < shape.layers; ++layer) {
      if (!pass->append(layer, keys, values)) return 1;
      if (!pass->attend(layer, queries, output)) return 1;
    }
    if (!pass->commit()) return 1;  // the policy evicts, the storage quantises
  }
  auto tokens = cache.tokens(0, 1, 1);
  std::printf("%d tokens kept\n", tokens ? *tokens : 0);
  return tokens && *tokens == 512 ? 0 : 1;
}
