// SPDX-License-Identifier: Apache-2.0
// A low-rank cache beside naive attention over vectors that were projected in double.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "kvast/kvast.h"
#include "tests/calibrate/made_up.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

/// U U^T x in double, with U the leading `rank` directions of a head.
inline std::vector<double> projected(const Directions& all, int head, int rank,
                                     const float* vector) {
  const int base = all.heads == 1 ? 0 : head;
  const auto at = [&](int row, int column) {
    return static_cast<double>(
        all.vectors[static_cast<std::size_t>((base * all.dim + row) * all.dim + column)]);
  };
  std::vector<double> sums(static_cast<std::size_t>(all.dim), 0.0);
  for (int column = 0; column < rank; ++column) {
    double along = 0.0;
    for (int row = 0; row < all.dim; ++row)
      along += at(row, column) * static_cast<double>(vector[row]);
    for (int row = 0; row < all.dim; ++row)
      sums[static_cast<std::size_t>(row)] += along * at(row, column);
  }
  return sums;
}

struct Setting {
  Shape shape{.query_heads = 6, .heads = 2, .head_dim = 48, .value_dim = 40};
  Pairing pairing = Pairing::halves;
  int width = 0;  ///< of the rotation; 0: the model does not rotate
  float scale = 1.0F;
  LayerRanks ranks{24, 16};
};

/// A cache of one layer, beside naive attention over keys that were projected, and then rotated.
template <class Policy, class Inner>
class Beside {
 public:
  Beside(const Setting& setting, Policy policy, Inner inner)
      : setting_(setting),
        calibration_(
            std::make_shared<Calibration>(random_calibration(setting.shape, setting.width > 0))),
        cache_(setting.shape, policy, storage(inner), pool_, options()),
        reference_(setting.shape.query_heads, setting.shape.heads, setting.shape.head_dim,
                   setting.shape.values()) {
    for (const float frequency : options().rope.inverse_frequencies)
      rope_.frequencies.push_back(static_cast<double>(frequency));
    rope_.interleaved = setting.pairing == Pairing::interleaved;
    rope_.scale = static_cast<double>(setting.scale);
  }

  EigenLowRank<Inner> storage(Inner inner) const {
    return {inner, calibration_, {setting_.ranks}, false};
  }
  CacheOptions options() const {
    if (setting_.width == 0) return {};
    CacheOptions options{.positions = Positions::unrotated,
                         .rope = Rope::plain(setting_.width, 10000.0, setting_.pairing)};
    options.rope.scale = setting_.scale;
    return options;
  }

  void run(const PassOptions& pass_options) {
    const Shape& shape = setting_.shape;
    const int count = pass_options.tokens;
    const auto size = [&](int heads, int dim) {
      return static_cast<std::size_t>(count * heads * dim);
    };
    keys = random_.normals(size(shape.heads, shape.head_dim));
    values = random_.normals(size(shape.heads, shape.values()));
    const auto queries = random_.normals(size(shape.query_heads, shape.head_dim), 2.0);
    output.assign(size(shape.query_heads, shape.values()), NAN);
    std::vector<int> positions(pass_options.positions.begin(), pass_options.positions.end());
    if (positions.empty()) {
      positions.resize(static_cast<std::size_t>(count));
      std::iota(positions.begin(), positions.end(), cache_.length());
    }
    auto pass = cache_.begin(pass_options);
    pass->append(0, std::span<const float>(keys), std::span<const float>(values));
    pass->attend(0, std::span<const float>(queries), std::span<float>(output));
    if (over_stored) {
      recall();
    } else {
      remember(positions);
    }
    pass->commit(0);
    const int step = std::max(1, count / 12);
    for (int token = count - 1; token >= 0; token -= step) check(token, positions, queries);
    check(0, positions, queries);
    for (int head = 0; head < shape.heads; ++head) reference_.keep(head, cache_.kept(0, head));
  }

  KVCache<Policy, EigenLowRank<Inner>>& cache() { return cache_; }
  const Calibration& calibration() const { return *calibration_; }
  ReferenceLayer& reference() { return reference_; }

  bool over_stored = false;  ///< what the cache says that it holds is what is attended to
  double worst = 0.0;        ///< relative error of a row of the output
  std::vector<float> keys, values, output;

 private:
  /// The reference's own way: tokens are kept in double, projected and rotated once.
  void remember(const std::vector<int>& positions) {
    const Shape& shape = setting_.shape;
    const LayerDirections& layer = calibration_->layers[0];
    for (std::size_t token = 0; token < positions.size(); ++token) {
      for (int head = 0; head < shape.heads; ++head) {
        const auto row =
            token * static_cast<std::size_t>(shape.heads) + static_cast<std::size_t>(head);
        std::vector<double> key =
            projected(layer.keys, head, setting_.ranks.keys,
                      keys.data() + row * static_cast<std::size_t>(shape.head_dim));
        if (setting_.width > 0) rope_.turn(key, positions[token]);
        reference_.kept(head).push_back(
            {positions[token], key,
             projected(layer.values, head, setting_.ranks.values,
                       values.data() + row * static_cast<std::size_t>(shape.values()))});
      }
    }
  }
  /// What the cache exports, and rotated, takes the place of what was remembered.
  void recall() {
    const Shape& shape = setting_.shape;
    for (int head = 0; head < shape.heads; ++head) {
      const std::vector<int> kept = cache_.kept(0, head);
      const auto width = static_cast<std::size_t>(shape.heads * shape.head_dim);
      const auto value_width = static_cast<std::size_t>(shape.heads * shape.values());
      std::vector<float> all_keys(kept.size() * width);
      std::vector<float> all_values(kept.size() * value_width);
      cache_.export_dense(0, std::span(all_keys), std::span(all_values));
      reference_.kept(head).clear();
      for (std::size_t token = 0; token < kept.size(); ++token) {
        const float* from = all_keys.data() + token * width + head * shape.head_dim;
        std::vector<double> key(from, from + shape.head_dim);
        if (setting_.width > 0) rope_.turn(key, kept[token]);
        from = all_values.data() + token * value_width + head * shape.values();
        reference_.kept(head).push_back({kept[token], key, {from, from + shape.values()}});
      }
    }
  }
  void check(int token, const std::vector<int>& positions, const std::vector<float>& queries) {
    const Shape& shape = setting_.shape;
    for (int head = 0; head < shape.query_heads; ++head) {
      const auto row = static_cast<std::size_t>(token * shape.query_heads + head);
      const float* from = queries.data() + row * static_cast<std::size_t>(shape.head_dim);
      std::vector<double> query(from, from + shape.head_dim);
      const int position = positions[static_cast<std::size_t>(token)];
      if (setting_.width > 0) rope_.turn(query, position);
      const std::vector<float> turned(query.begin(), query.end());
      const auto sight = reference_.attend(head, position, turned.data());
      const double error = relative_error(
          output.data() + row * static_cast<std::size_t>(shape.values()), sight.output);
      worst = std::max(worst, std::isnan(error) ? INFINITY : error);
    }
  }

  Setting setting_;
  std::shared_ptr<const Calibration> calibration_;
  BlockPool pool_;
  KVCache<Policy, EigenLowRank<Inner>> cache_;
  ReferenceLayer reference_;
  ReferenceRope rope_;
  Random random_{3};
};

}  // namespace kvast::test
