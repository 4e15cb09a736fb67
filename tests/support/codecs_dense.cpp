// SPDX-License-Identifier: Apache-2.0
// The products of formats that are converted to float.
#include "tests/support/codecs.h"

namespace kvast {

template test::Product tile_multiply<F32, Simd>;
template test::Product tile_multiply<F16, Simd>;
template test::Product tile_multiply<BF16, Simd>;
template test::Product tile_multiply<Fp8<E4M3>, Simd>;
template test::Product tile_multiply<Fp8<E5M2>, Simd>;

}  // namespace kvast
