// expect: kvast OnGpu: this policy needs attention, and the engine gives none (Weightless):
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/h2o.h>
#include <kvast/gpu/kv_cache.cuh>

struct Device {};
using Cache = kvast::KVCache<kvast::H2O, kvast::OnGpu<kvast::Weightless<kvast::Kivi<4>>, Device>>;
int layers(const Cache& cache) { return cache.layers(); }
