// expect: calling a __host__ function("Forgetful::rank(
// SPDX-License-Identifier: Apache-2.0
#include <kvast/gpu/kv_cache.cuh>

// rank lacks KVAST_HD, in a policy without a budget
struct Forgetful {
  static constexpr kvast::Needs needs{};
  struct State {};
  float rank(kvast::Token t, State) const { return t.age < 8 ? kvast::kPin : kvast::kDrop; }
};
template class kvast::KVCache<Forgetful, kvast::OnGpu<kvast::Dense<float>>>;
