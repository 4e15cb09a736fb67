// SPDX-License-Identifier: Apache-2.0
// Whole tokens out of fractional shares, so that nothing is lost or made by rounding.
#pragma once

#include <algorithm>
#include <cmath>
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

}  // namespace kvast
