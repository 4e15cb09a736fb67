// expect: kvast: this policy needs attention, and the engine gives none (Weightless): take a
// SPDX-License-Identifier: Apache-2.0
#include <kvast/kvast.h>

using Cache = kvast::KVCache<kvast::H2O, kvast::Weightless<kvast::Kivi<4>>>;
int layers(const Cache& cache) { return cache.layers(); }
