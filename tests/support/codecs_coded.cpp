// SPDX-License-Identifier: Apache-2.0
// The products of integer codes.
#include "tests/support/codecs.h"

namespace kvast {

template test::Product tile_multiply<Int<2>, Simd>;
template test::Product tile_multiply<Int<3>, Simd>;
template test::Product tile_multiply<Int<4>, Simd>;
template test::Product tile_multiply<Int<8>, Simd>;
template test::Product tile_multiply<Codebook<2>, Simd>;
template test::Product tile_multiply<Codebook<3>, Simd>;
template test::Product tile_multiply<Codebook<4>, Simd>;

}  // namespace kvast
