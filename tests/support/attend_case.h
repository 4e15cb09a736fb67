// SPDX-License-Identifier: Apache-2.0
// One layer driven pass by pass beside the reference in double.
#pragma once

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "kvast/kvast.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

/// A cache of one layer and its reference, fed the same random tokens; compiled once per policy.
template <class Policy>
class AnyDuel {
 public:
  using Cache = KVCache<Policy, AnyStorage>;

  AnyDuel(const Shape& shape, Policy policy, const AnyStorage& storage, CacheOptions options = {},
          std::uint64_t seed = 1)
      : shape_(shape),
        cache_(shape, policy, storage, pool_, std::move(options)),
        reference_(shape.query_heads, shape.heads, shape.head_dim, shape.values()),
        random_(seed) {}

  Cache& cache() { return cache_; }
  ReferenceLayer& reference() { return reference_; }
  const Shape& shape() const { return shape_; }
  Random& random() { return random_; }

  std::size_t size(int tokens, int heads, int dim) const {
    return static_cast<std::size_t>(tokens) * static_cast<std::size_t>(heads * dim);
  }

  /// One pass; afterwards `worst` is the largest relative error of any row, over at most `rows`
  /// tokens of the pass (0: unchecked). The reference forgets what the cache forgot.
  void run(const PassOptions& pass_options, AttendOptions options = {}, ReferenceRules rules = {},
           int rows = 24) {
    const int count = pass_options.tokens;
    keys = random_.normals(size(count, shape_.heads, shape_.head_dim));
    values = random_.normals(size(count, shape_.heads, shape_.values()));
    if (rounds_to_half) {
      for (std::vector<float>* numbers : {&keys, &values}) {
        for (float& number : *numbers)
          number = static_cast<float>(nearest_half(static_cast<double>(number)));
      }
    }
    queries = random_.normals(size(count, shape_.query_heads, shape_.head_dim), 2.0);
    output.assign(size(count, shape_.query_heads, shape_.values()), NAN);
    log_sum_exp.assign(size(count, shape_.query_heads, 1), NAN);
    options.log_sum_exp = log_sum_exp;
    std::vector<int> positions(pass_options.positions.begin(), pass_options.positions.end());
    if (positions.empty()) {
      positions.resize(static_cast<std::size_t>(count));
      std::iota(positions.begin(), positions.end(), cache_.length());
    }
    auto pass = cache_.begin(pass_options);
    ASSERT_TRUE(pass) << pass.status().message();
    pass->append(0, keys.data(), values.data());
    pass->attend(0, queries.data(), output.data(), options);
    pass->commit(0);
    reference_.append(positions, keys.data(), values.data());
    const int step = rows == 0 ? count + 1 : std::max(1, count / rows);
    for (int token = count - 1; token >= 0 && rows > 0; token -= step)
      check(token, positions, rules);
    if (rows > 0) check(0, positions, rules);
    for (int head = 0; head < shape_.heads; ++head) reference_.keep(head, cache_.kept(0, head));
  }

  bool rounds_to_half = false;  ///< keys and values arrive as numbers that half holds exactly
  double worst = 0.0;           ///< relative error of a row of the output
  double worst_lse = 0.0;       ///< absolute error of a log-sum-exp
  std::vector<float> keys, values, queries, output, log_sum_exp;

 private:
  void check(int token, const std::vector<int>& positions, const ReferenceRules& rules) {
    for (int head = 0; head < shape_.query_heads; ++head) {
      const std::size_t row = size(token, shape_.query_heads, 1) + static_cast<std::size_t>(head);
      const ReferenceSight sight = reference_.attend(
          head, positions[static_cast<std::size_t>(token)],
          queries.data() + row * static_cast<std::size_t>(shape_.head_dim), rules);
      const double error = relative_error(
          output.data() + row * static_cast<std::size_t>(shape_.values()), sight.output);
      worst = std::max(worst, std::isnan(error) ? INFINITY : error);
      const double apart = std::abs(static_cast<double>(log_sum_exp[row]) - sight.log_sum_exp);
      worst_lse = std::max(worst_lse, std::isnan(apart) ? INFINITY : apart);
    }
  }

  Shape shape_;
  BlockPool pool_;
  Cache cache_;
  ReferenceLayer reference_;
  Random random_;
};

template <class Policy, class Storage>
class Duel : public AnyDuel<Policy> {
 public:
  Duel(const Shape& shape, Policy policy, Storage storage, CacheOptions options = {},
       std::uint64_t seed = 1)
      : AnyDuel<Policy>(shape, policy, storage, std::move(options), seed) {}
};

}  // namespace kvast::test
