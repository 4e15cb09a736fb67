// SPDX-License-Identifier: Apache-2.0
// The decoder on a device with caches of codes: every pair of formats that attention reads.
#include "tests/simt/decoder/simt_caches.h"

namespace kvast {
namespace {

using test::Compiled;
template <class Keys, class Values = Keys>
using Coded = quality::CodedLayers<Keys, Values>;
using Caches =
    test::SimtCaches<Compiled<H2O, Coded<Int<4>>>, Compiled<TOVA, Coded<Int<8>>>,
                     Compiled<Full, Coded<Int<2>>>, Compiled<StreamingLLM, Coded<Int<8>, Int<4>>>,
                     Compiled<L2Norm, Coded<Int<4>, Int<2>>>, Compiled<Random, Coded<Fp8<E4M3>>>>;

// Queries and weights are rounded to halves on the device and to integers on the CPU.
constexpr double kCodes = 5e-3;

TEST(CodedDecoder, KiviAtFourBits) {
  test::check_in_simt<Caches>({"h2o:heavy=30,recent=10", "kivi:bits=4,residual=8", kCodes, 0.1});
}
TEST(CodedDecoder, Int4) {
  test::check_in_simt<Caches>({"h2o:heavy=30,recent=10", "int4:first=2", kCodes, 0.1});
}
TEST(CodedDecoder, RotatedInt8) {
  test::check_in_simt<Caches>({"tova:budget=40", "rotated+int8", kCodes, 0.1});
}
TEST(CodedDecoder, LayersThatStayDense) {
  test::check_in_simt<Caches>({"tova:budget=40", "int8:layers=1", kCodes, 0.1});
}
TEST(CodedDecoder, KiviAtTwoBits) {
  test::check_in_simt<Caches>({"full", "rotated+kivi:bits=2,residual=0", kCodes});
}
TEST(CodedDecoder, KiviOfTwoWidths) {
  test::check_in_simt<Caches>({"streaming:sinks=4,recent=40", "kivi:k=8,v=4,residual=4", kCodes});
  test::check_in_simt<Caches>(
      {"l2norm:budget=40,recent=4,skip=none", "kivi:k=4,v=2,residual=0", kCodes, 0.1});
}
TEST(CodedDecoder, Float8) {
  test::check_in_simt<Caches>({"random:budget=40,recent=4", "fp8:kind=e4m3", kCodes});
}

}  // namespace
}  // namespace kvast
