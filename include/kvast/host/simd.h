// SPDX-License-Identifier: Apache-2.0
// Chooses the vector operations by what the translation unit is compiled for.
// `kvast::Simd` is another type in each (an inline namespace per instruction set), and everything
// that depends on it takes it as a template argument, so translation units compiled for different
// machines may be linked together.
#pragma once

#include <initializer_list>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "kvast/host/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kvast/host/simd_avx2.h"
#else
#include "kvast/host/simd_portable.h"
#endif

namespace kvast {

/// e^a to 2 ulp for a in [-87, 88]; below that it stays at e^-87, which is 1e-38 and not zero: mask
/// afterwards.
template <class Simd>
typename Simd::F exp_lanes(typename Simd::F a) {
  using F = typename Simd::F;
  a = Simd::max(a, Simd::set1(-87.0F));
  const F whole = Simd::round(Simd::mul(a, Simd::set1(1.44269504088896F)));
  // ln 2 in two parts, so that the remainder keeps its low bits
  F rest = Simd::fma(whole, Simd::set1(-0.693359375F), a);
  rest = Simd::fma(whole, Simd::set1(2.12194440054691e-4F), rest);
  F power = Simd::set1(1.0F / 5040.0F);  // Taylor: |rest| <= 0.347, the next term is below 6e-9
  for (const float term :
       {1.0F / 720.0F, 1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F, 0.5F, 1.0F, 1.0F}) {
    power = Simd::fma(power, rest, Simd::set1(term));
  }
  return Simd::mul(power, Simd::exp2_whole(whole));
}

}  // namespace kvast
