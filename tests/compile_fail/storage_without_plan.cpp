// expect: kvast storage: must have plan<Simd>(layer) and validate(caller)
// SPDX-License-Identifier: Apache-2.0
#include <kvast/kvast.h>

struct Shelf {};
using Cache = kvast::KVCache<kvast::Full, Shelf>;
int layers(const Cache& cache) { return cache.layers(); }
