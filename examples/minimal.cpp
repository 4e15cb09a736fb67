// SPDX-License-Identifier: Apache-2.0
// The shortest complete use: a toy model decodes 2,000 tokens; 512 are kept per head, all but the
// newest in 4 bits.
#include <kvast/kvast.h>

#include <cstdio>
#include <vector>

int main() {
  using namespace kvast;
  const Shape shape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 64};
  BlockPool pool;
  KVCache<H2O, Kivi<4>> cache(shape, H2O{.heavy = 256, .recent = 256}, {}, pool);
  std::vector<float> keys(2 * 64, 0.1F), values(2 * 64, 0.5F), queries(4 * 64, 1.0F),
      output(4 * 64);
  for (int token = 0; token < 2000; ++token) {
    auto pass = cache.begin({.tokens = 1});
    if (!pass) return 1;  // the pool is exhausted; the cache is as it was
    for (int layer = 0; layer < shape.layers; ++layer) {
      keys[static_cast<std::size_t>(token % 128)] += 0.1F;  // your model's projections
      pass->append(layer, keys.data(), values.data());
      pass->attend(layer, queries.data(), output.data());
      pass->commit(layer);  // the policy evicts, the storage quantises
    }
  }
  std::printf("%d tokens kept, %zu bytes\n", cache.tokens(0, 0), cache.bytes_in_use());
  return cache.tokens(0, 0) == 512 ? 0 : 1;
}
