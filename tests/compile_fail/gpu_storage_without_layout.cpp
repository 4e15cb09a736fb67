// expect: kvast OnGpu: this storage has no layout on the device (Dense, Kivi, Int8, Int4
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/full.h>
#include <kvast/storage/rotated.h>
#include <kvast/gpu/kv_cache.cuh>

struct Device {};
using Cache = kvast::KVCache<kvast::Full, kvast::OnGpu<kvast::TurboQuant<3>, Device>>;
int layers(const Cache& cache) { return cache.layers(); }
