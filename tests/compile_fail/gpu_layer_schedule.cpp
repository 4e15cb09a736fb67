// expect: kvast OnGpu: this policy does not run on the device: it must rank tokens one by
// SPDX-License-Identifier: Apache-2.0
#include <kvast/policy/layer_budgets.h>
#include <kvast/policy/snapkv.h>
#include <kvast/gpu/kv_cache.cuh>

struct Device {};
using Cache = kvast::KVCache<kvast::Pyramid<kvast::SnapKV>, kvast::OnGpu<kvast::Kivi<4>, Device>>;
int layers(const Cache& cache) { return cache.layers(); }
