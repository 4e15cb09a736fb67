// SPDX-License-Identifier: Apache-2.0
// Whole tokens out of fractional shares, so that nothing is lost or made by rounding.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace kvast {

/// Splits `total` into whole parts near `shares` (at least 0, in any unit), none above its `most`,
/// by largest remainder; of equal remainders the first wins. The parts sum to min(total, sum of
/// most) exactly.
inline void apportion(std::span<const double> shares, int total, std::span<const int> most,
                      std::span<int> parts) {
  std::fill(parts.begin(), parts.end(), 0);
  std::vector<double> remainders(shares.size());
  for (int left = total; left > 0;) {
    double sum = 0.0;
    int open = 0;
    for (std::size_t at = 0; at < shares.size(); ++at) {
      if (parts[at] >= most[at]) continue;
      sum += shares[at];
      ++open;
    }
    if (open == 0) return;
    // what full parts gave up goes to the open ones in a further round
    const int round = left;
    for (std::size_t at = 0; at < shares.size(); ++at) {
      remainders[at] = -1.0;
      if (parts[at] >= most[at]) continue;
      const double wanted = round * (sum > 0.0 ? shares[at] / sum : 1.0 / open);
      const int given = std::min(static_cast<int>(std::floor(wanted + 1e-9)), most[at] - parts[at]);
      parts[at] += given;
      left -= given;
      if (parts[at] < most[at]) remainders[at] = wanted - given;
    }
    while (left > 0) {
      const auto best = std::max_element(remainders.begin(), remainders.end());
      if (*best < 0.0 || *best >= 1.0) break;
      const auto at = static_cast<std::size_t>(best - remainders.begin());
      *best = -1.0;
      ++parts[at];
      --left;
    }
  }
}

/// Part `place` of `total` (at most 2^30), split without limits by finite `shares` that are not all
/// 0, by largest remainder; of equal remainders the first wins. The parts sum to `total`. Allocates
/// nothing.
inline int apportioned(std::span<const double> shares, int total, std::size_t place) {
  constexpr std::int64_t kUnits = 1000000;  // of a token: equal shares stay equal, however rounded
  double sum = 0.0;
  for (const double share : shares) sum += share;
  const auto units = [&](std::size_t at) {
    return static_cast<std::int64_t>(std::llround(shares[at] / sum * total * kUnits));
  };
  const std::int64_t own = units(place);
  std::int64_t left = total;
  int before = 0;  // parts that are rounded up before this one
  for (std::size_t at = 0; at < shares.size(); ++at) {
    const std::int64_t other = units(at);
    left -= other / kUnits;
    const std::int64_t ahead = other % kUnits - own % kUnits;
    before += ahead > 0 || (ahead == 0 && at < place) ? 1 : 0;
  }
  return static_cast<int>(own / kUnits + (before < left ? 1 : 0));
}

}  // namespace kvast
