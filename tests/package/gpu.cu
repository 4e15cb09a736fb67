// SPDX-License-Identifier: Apache-2.0
// A user of the component kvast::gpu: a batch of two sequences on the device.
#include <kvast/policy/streaming_llm.h>
#include <kvast/gpu/kv_cache.cuh>

#include <cstdio>

int main() {
  using namespace kvast;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("skipped: no CUDA device");
    return 0;
  }
  cudaStream_t stream = nullptr;
  if (cudaStreamCreate(&stream) != cudaSuccess) return 1;
  const Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 64};
  float* numbers = nullptr;
  if (cudaMalloc(&numbers, 2 * 2 * 64 * sizeof(float)) != cudaSuccess) return 1;
  if (cudaMemset(numbers, 0, 2 * 2 * 64 * sizeof(float)) != cudaSuccess) return 1;
  bool complete = true;
  {
    gpu::Pool<gpu::CudaDevice> pool({.stream = stream});
    KVCache<StreamingLLM, OnGpu<Kivi<4>>> cache(shape, {.sinks = 4, .recent = 60}, {}, pool,
                                                {.sequences = 2});
    for (int token = 0; token < 100 && complete; ++token) {
      auto pass = cache.begin();
      complete = static_cast<bool>(pass);
      for (int layer = 0; layer < shape.layers && complete; ++layer)
        complete = static_cast<bool>(pass->append(layer, numbers, numbers));
      if (complete) complete = static_cast<bool>(pass->commit());
    }
    auto tokens = cache.tokens(1, 1, 1);
    complete = complete && tokens && *tokens == 64;
  }
  (void)cudaFree(numbers);
  (void)cudaStreamDestroy(stream);
  std::puts(complete ? "64 tokens kept" : "failed");
  return complete ? 0 : 1;
}
