// expect: kvast policy: must say what it needs: static constexpr Needs needs
// SPDX-License-Identifier: Apache-2.0
#include <kvast/kvast.h>

struct Silent {
  struct State {};
  float rank(kvast::Token, State) const { return 0.0F; }
};
using Cache = kvast::KVCache<Silent, kvast::External>;
int layers(const Cache& cache) { return cache.layers(); }
