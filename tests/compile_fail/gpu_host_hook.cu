// expect: calling a __host__ function("Newest::rank(
// SPDX-License-Identifier: Apache-2.0
// nvcc says it (./dev check cuda): a policy's hooks must be KVAST_HD where kernels call them.
#include <kvast/gpu/launch.cuh>
#include <kvast/gpu/rank.cuh>

struct Newest {
  static constexpr kvast::Needs needs{};
  struct State {};
  float rank(kvast::Token token, State) const { return static_cast<float>(token.position); }
  KVAST_HD kvast::Budget budget(kvast::Layer) const { return kvast::tokens(8); }
};
kvast::Status rank(cudaStream_t stream) {
  return kvast::gpu::launch(kvast::gpu::Rank<Newest>{}, {}, stream);
}
