// SPDX-License-Identifier: Apache-2.0
// Vectors that lie in known subspaces, and orthonormal bases made by Gram and Schmidt in double.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "kvast/calibrate/calibration.h"
#include "tests/support/random.h"

namespace kvast::test {

/// [dim][rank] orthonormal columns, row-major.
inline std::vector<double> random_basis(Random& random, int dim, int rank) {
  const auto width = static_cast<std::size_t>(rank);
  const auto height = static_cast<std::size_t>(dim);
  std::vector<double> basis(height * width);
  for (std::size_t at = 0; at < width; ++at) {
    for (std::size_t row = 0; row < height; ++row) basis[row * width + at] = random.normal();
    for (int turn = 0; turn < 2; ++turn) {  // twice is enough
      for (std::size_t before = 0; before < at; ++before) {
        double along = 0.0;
        for (std::size_t row = 0; row < height; ++row)
          along += basis[row * width + at] * basis[row * width + before];
        for (std::size_t row = 0; row < height; ++row)
          basis[row * width + at] -= along * basis[row * width + before];
      }
    }
    double norm = 0.0;
    for (std::size_t row = 0; row < height; ++row) norm += std::pow(basis[row * width + at], 2);
    for (std::size_t row = 0; row < height; ++row) basis[row * width + at] /= std::sqrt(norm);
  }
  return basis;
}

/// `count` vectors in the span of `basis`: normal coordinates times it, [count, dim].
inline std::vector<float> vectors_in(Random& random, const std::vector<double>& basis, int dim,
                                     int rank, int count) {
  std::vector<float> vectors;
  std::vector<double> coordinates(static_cast<std::size_t>(rank));
  for (int vector = 0; vector < count; ++vector) {
    for (double& coordinate : coordinates) coordinate = random.normal();
    for (int row = 0; row < dim; ++row) {
      double sum = 0.0;
      for (int at = 0; at < rank; ++at)
        sum += basis[static_cast<std::size_t>(row * rank + at)] *
               coordinates[static_cast<std::size_t>(at)];
      vectors.push_back(static_cast<float>(sum));
    }
  }
  return vectors;
}

/// Random orthonormal directions with falling energies.
inline Directions random_directions(Random& random, int bases, int dim, double decay = 0.9) {
  Directions all{.heads = bases, .dim = dim, .energies = {}, .vectors = {}};
  for (int base = 0; base < bases; ++base) {
    for (int at = 0; at < dim; ++at) all.energies.push_back(std::pow(decay, at));
    for (const double number : random_basis(random, dim, dim))
      all.vectors.push_back(static_cast<float>(number));
  }
  return all;
}

/// Layers of one shape with random directions; keys share one basis, values have one per head.
inline Calibration random_calibration(const Shape& shape, bool before_rope = false,
                                      std::uint64_t seed = 1) {
  Random random(seed);
  Calibration made{.shapes = {}, .before_rope = before_rope, .tokens = 1000, .layers = {}};
  for (int layer = 0; layer < shape.layers; ++layer) {
    Shape one = shape;
    one.layers = 1;
    made.shapes.push_back(one);
    made.layers.push_back({random_directions(random, before_rope ? 1 : shape.heads, shape.head_dim),
                           random_directions(random, shape.heads, shape.values())});
  }
  return made;
}

}  // namespace kvast::test
