// expect: calling a __host__ function("Heaviest::observe(
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/composites.h>
#include <kvast/policy/full.h>
#include <kvast/gpu/launch.cuh>
#include <kvast/gpu/observe.cuh>

// observe lacks KVAST_HD, in a part of another policy
struct Heaviest {
  static constexpr kvast::Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };
  void observe(State& state, kvast::Attention seen) const { state.mass += seen.weight; }
  KVAST_HD float rank(kvast::Token, State state) const { return state.mass; }
  KVAST_HD kvast::Budget budget(kvast::Layer) const { return kvast::tokens(8); }
};
using Heads = kvast::PerHead<kvast::Full, Heaviest>;
using Part = kvast::detail::Part<Heaviest, Heads::State, &Heads::State::rest>;
kvast::Status observe(cudaStream_t stream) {
  using Sink = kvast::gpu::ObserveStates<Part>;
  return kvast::gpu::launch(kvast::gpu::ObserveGiven<Sink>{}, {}, stream);
}
