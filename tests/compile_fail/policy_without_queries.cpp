// expect: kvast: this policy needs attention, and the engine gives none (Weightless): take a
// SPDX-License-Identifier: Apache-2.0
#include <kvast/kvast.h>

// it looks at no weights, but at the moments of queries
using Cache = kvast::KVCache<kvast::ExpectedAttention, kvast::Weightless<kvast::Dense<float>>>;
int layers(const Cache& cache) { return cache.layers(); }
