// expect: kvast OnGpu: this policy does not run on the device yet (those that keep all or
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/h2o.h>
#include <kvast/gpu/kv_cache.cuh>

struct Device {};
using Cache = kvast::KVCache<kvast::H2O, kvast::OnGpu<kvast::Kivi<4>, Device>>;
int layers(const Cache& cache) { return cache.layers(); }
