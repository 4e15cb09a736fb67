// SPDX-License-Identifier: Apache-2.0
// Whole tokens out of fractional shares, so that nothing is lost or made by rounding.
#pragma once

#include <cmath>
#include <cstdint>

#include "kvast/core/numeric.h"

namespace kvast {

/// One of those among whom something is split.
struct Claim {
  double share = 0.0;      ///< at least 0 and finite, in any unit
  int most = 0;            ///< that it can take
  int part = 0;            ///< out: what it gets
  double remainder = 0.0;  ///< of the round that is on
};

/// Splits `total` into whole parts near the shares of `claims` [count], none above its most, by
/// largest remainder; of equal remainders the first wins. The parts sum to min(total, sum of most)
/// exactly. Claims: Claim, or what derives from it.
template <class Claims>
KVAST_HD void apportion(Claims* claims, int count, int total) {
  for (int at = 0; at < count; ++at) claims[at].part = 0;
  for (int left = total; left > 0;) {
    double sum = 0.0;
    int open = 0;
    for (int at = 0; at < count; ++at) {
      if (claims[at].part >= claims[at].most) continue;
      sum += claims[at].share;
      ++open;
    }
    if (open == 0) return;
    // what full parts gave up goes to the open ones in a further round
    const int round = left;
    for (int at = 0; at < count; ++at) {
      Claim& claim = claims[at];
      claim.remainder = -1.0;
      if (claim.part >= claim.most) continue;
      const double wanted = multiply(round, sum > 0.0 ? claim.share / sum : 1.0 / open);
      // as std::floor: it is not negative
      const int given = least_of(static_cast<int>(wanted + 1e-9), claim.most - claim.part);
      claim.part += given;
      left -= given;
      if (claim.part < claim.most) claim.remainder = wanted - given;
    }
    while (left > 0) {
      Claims* best = claims;
      for (int at = 1; at < count; ++at) {
        if (best->remainder < claims[at].remainder) best = claims + at;
      }
      if (best->remainder < 0.0 || best->remainder >= 1.0) break;
      best->remainder = -1.0;
      ++best->part;
      --left;
    }
  }
}

/// Part `place` of `total` (at most 2^30), split without limits by finite shares(0) .. shares(count
/// - 1) that are not all 0, by largest remainder; of equal remainders the first wins. The parts sum
/// to `total`.
template <class Shares>
KVAST_HD int apportioned(const Shares& shares, int count, int total, int place) {
  constexpr std::int64_t kUnits = 1000000;  // of a token: equal shares stay equal, however rounded
  double sum = 0.0;
  for (int at = 0; at < count; ++at) sum += shares(at);
  const auto units = [&](int at) {
    const double wanted = multiply(multiply(shares(at) / sum, total), kUnits);
    return static_cast<std::int64_t>(wanted + 0.5);  // it is not negative
  };
  const std::int64_t own = units(place);
  std::int64_t left = total;
  int before = 0;  // parts that are rounded up before this one
  for (int at = 0; at < count; ++at) {
    const std::int64_t other = units(at);
    left -= other / kUnits;
    const std::int64_t ahead = other % kUnits - own % kUnits;
    before += ahead > 0 || (ahead == 0 && at < place) ? 1 : 0;
  }
  return static_cast<int>(own / kUnits + (before < left ? 1 : 0));
}

}  // namespace kvast
