// SPDX-License-Identifier: Apache-2.0
// The decoder on a device with caches of f32, f16 and bf16: every policy that must see attention,
// and has not its cell among the codes.
#include "tests/simt/decoder/simt_caches.h"

namespace kvast {
namespace {

using test::Compiled;
using Caches =
    test::SimtCaches<Compiled<Full, Dense<float>>, Compiled<Corm, Dense<BF16>>,
                     Compiled<Scissorhands, Dense<half>>, Compiled<Keyformer, Dense<float>>,
                     Compiled<SnapKV, Dense<half>>, Compiled<AdaHeads<SnapKV>, Dense<float>>,
                     Compiled<Pyramid<SnapKV>, Dense<float>>, Compiled<FastGen, Dense<float>>>;

// Nothing but the order of sums differs in f32; f16 and bf16 round queries, and keys whose last bit
// differs.
constexpr double kF32 = 1e-5, kF16 = 1e-3, kBF16 = 5e-3;

TEST(DenseDecoder, Full) { test::check_in_simt<Caches>({"full", "f32", kF32}); }
TEST(DenseDecoder, Corm) {
  test::check_in_simt<Caches>({"corm:window=16,recent=8,cap=30", "bf16", kBF16, 0.1});
}
TEST(DenseDecoder, Scissorhands) {
  test::check_in_simt<Caches>(
      {"scissorhands:budget=40,recent=4,window=20,when=full/8", "f16", kF16, 0.05});
}
TEST(DenseDecoder, Keyformer) { test::check_in_simt<Caches>({"keyformer:budget=30", "f32", kF32}); }
TEST(DenseDecoder, SnapKV) {
  test::check_in_simt<Caches>({"snapkv:budget=24,window=8", "f16", kF16, 0.05});
}
TEST(DenseDecoder, AdaKV) {
  test::check_in_simt<Caches>({"adakv:budget=24,window=8", "f32", kF32});
}
TEST(DenseDecoder, PyramidKV) {
  test::check_in_simt<Caches>({"pyramidkv:budget=24,window=8", "f32", kF32});
}
TEST(DenseDecoder, CompactedPositions) {
  test::check_in_simt<Caches>({"full:positions=compacted", "f32", kF32});
  test::check_in_simt<Caches>(
      {"scissorhands:budget=40,recent=4,window=20,when=full/8,positions=compacted", "f16", kF16,
       0.05});
}
TEST(DenseDecoder, FastGen) {
  test::check_in_simt<Caches>({"fastgen:threshold=0.6,frequent=0.2,local=0.2", "f32", kF32});
}

}  // namespace
}  // namespace kvast
