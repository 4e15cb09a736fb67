// SPDX-License-Identifier: Apache-2.0
// The products of all formats, compiled once (codecs_*.cpp) for all tests: nothing else takes as
// long.
#pragma once

#include "kvast/format/codebook.h"
#include "kvast/format/floats.h"
#include "kvast/format/fp8.h"
#include "kvast/format/integer.h"
#include "kvast/host/multiply.h"

namespace kvast {
namespace test {

using Product = void(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                     const std::byte* tiles, int columns, float* c, std::ptrdiff_t c_stride,
                     const std::byte* ahead, const Pending& pending);

}  // namespace test

extern template test::Product tile_multiply<F32, Simd>;
extern template test::Product tile_multiply<F16, Simd>;
extern template test::Product tile_multiply<BF16, Simd>;
extern template test::Product tile_multiply<Fp8<E4M3>, Simd>;
extern template test::Product tile_multiply<Fp8<E5M2>, Simd>;
extern template test::Product tile_multiply<Int<2>, Simd>;
extern template test::Product tile_multiply<Int<3>, Simd>;
extern template test::Product tile_multiply<Int<4>, Simd>;
extern template test::Product tile_multiply<Int<8>, Simd>;
extern template test::Product tile_multiply<Codebook<2>, Simd>;
extern template test::Product tile_multiply<Codebook<3>, Simd>;
extern template test::Product tile_multiply<Codebook<4>, Simd>;

}  // namespace kvast
