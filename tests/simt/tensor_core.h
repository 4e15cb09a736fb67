// SPDX-License-Identifier: Apache-2.0
// How tensor cores multiply and add, for the simt runner. NVIDIA does not say, others measured it:
//   Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor cores. PeerJ Computer
//     Science 7:e330, 2021
//   arXiv 2511.10909 (github.com/microsoft/MMA-Sim) and arXiv 2512.07004
//     (github.com/north-numerical-computing/MATLAB-tensor-core): models that agree bit by bit
// Products are exact. They and the sum so far are cut off, towards zero, so many bits below the
// largest of their exponents, and so is what they come to. A product's exponent is the sum of those
// that its factors are written with: a subnormal number has that of the smallest normal one, so
// its leading zeros are bits lost. There are 24 bits on Ampere and Ada, where m16n8k16 adds eight
// products and then the other eight, and 25 on Hopper, where it adds all at once. Here it is as on
// the former, where more is lost: what passes here passes there.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace kvast::test {

class TensorCore {
 public:
  /// sum + left . right, of numbers whose smallest normal one is 2^least_exponent.
  template <std::size_t kDepth>
  static float add(float sum, const double (&left)[kDepth], const double (&right)[kDepth],
                   int least_exponent) {
    static_assert(kDepth % kTogether == 0);
    for (std::size_t first = 0; first < kDepth; first += kTogether) {
      Term terms[kTogether + 1] = {{sum, exponent_of(sum, kLeastOfFloats)}};
      for (std::size_t at = 0; at < kTogether; ++at) {
        const double one = left[first + at];
        const double other = right[first + at];
        terms[at + 1] = {one * other,
                         exponent_of(one, least_exponent) + exponent_of(other, least_exponent)};
      }
      sum = total_of(terms);
    }
    return sum;
  }

 private:
  static constexpr std::size_t kTogether = 8;
  static constexpr int kBits = 24;
  static constexpr int kLeastOfFloats = -126;

  struct Term {
    double number = 0.0;
    int exponent = 0;
  };

  /// Of a half or a float, which are normal as doubles.
  static int exponent_of(double number, int least) {
    const auto bits = std::bit_cast<std::uint64_t>(number);
    return std::max(static_cast<int>(bits >> 52U & 0x7FFU) - 1023, least);
  }

  static float total_of(const Term (&terms)[kTogether + 1]) {
    double sum = 0.0;
    int largest = 4 * kLeastOfFloats;
    for (const Term& term : terms) {
      sum += term.number;
      if (term.number != 0.0) largest = std::max(largest, term.exponent);
    }
    if (!std::isfinite(sum)) return static_cast<float>(sum);
    const double units_of_one = power_of_two(kBits - largest);
    std::int64_t units = 0;  // fewer than 2^30; conversions cut off towards zero
    for (const Term& term : terms) units += static_cast<std::int64_t>(term.number * units_of_one);
    const auto size = static_cast<std::uint64_t>(std::abs(units));
    const int over = std::max(static_cast<int>(std::bit_width(size)) - kBits, 0);
    const auto kept = static_cast<double>(size >> over << over);
    return static_cast<float>(std::copysign(kept, static_cast<double>(units)) *
                              power_of_two(largest - kBits));
  }
  static double power_of_two(int exponent) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52U);
  }
};

}  // namespace kvast::test
