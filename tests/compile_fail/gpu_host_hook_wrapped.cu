// expect: calling a __host__ function("Newest::rank(
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/wrappers.h>
#include <kvast/gpu/launch.cuh>
#include <kvast/gpu/rank.cuh>

// the hook lacks KVAST_HD, and a wrapper calls it
struct Newest {
  static constexpr kvast::Needs needs{};
  struct State {};
  float rank(kvast::Token token, State) const { return static_cast<float>(token.position); }
  KVAST_HD kvast::Budget budget(kvast::Layer) const { return kvast::tokens(8); }
};
kvast::Status rank(cudaStream_t stream) {
  return kvast::gpu::launch(kvast::gpu::Rank<kvast::Protect<Newest>>{}, {}, stream);
}
