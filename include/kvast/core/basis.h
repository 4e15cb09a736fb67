// SPDX-License-Identifier: Apache-2.0
// What stands between vectors and formats: a layer's keys, or its values, are kept as coordinates
// in a basis.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kvast/core/rotation.h"

namespace kvast {

/// Orthonormal directions, of each kv head of a layer or one set for all of them.
struct BasisMatrix {
  int heads = 1;               ///< 1: shared by all heads
  int dim = 0;                 ///< D, features of a vector; at most 512
  int rank = 0;                ///< r, coordinates kept; a multiple of 8 up to D
  std::vector<float> columns;  ///< [heads, dim, rank]: column j is the j-th direction
};

/// A basis as a storage asks for it, before it knows the model's sizes. Low rank and rotation
/// compose: the rotation then spreads the coordinates.
struct BasisPlan {
  bool rotates = false;  ///< a seeded rotation, see Rotation
  std::uint64_t seed = 0;
  std::shared_ptr<const BasisMatrix> directions{};  ///< null: all of the space
};

/// Maps a vector to the coordinates that are kept, and back to the nearest vector that has them.
/// Products of two vectors of the space are products of their coordinates.
class Basis {
 public:
  Basis() = default;
  Basis(const BasisPlan& plan, int dim)
      : dim_(dim), rank_(plan.directions == nullptr ? dim : plan.directions->rank) {
    if (plan.rotates) rotation_ = Rotation::of(rank_, plan.seed);
    if (plan.directions != nullptr) {
      set_matrix(*plan.directions);
    } else {
      growth_ = std::sqrt(static_cast<float>(rotation_.width));
    }
  }

  int dim() const { return dim_; }
  int rank() const { return rank_; }
  bool is_identity() const { return matrix_ == nullptr && rotation_.dim == 0; }
  /// Coordinates are at most this factor larger than the largest number of the vector.
  float growth() const { return growth_; }

  /// In place: `numbers` are dim() features, of which rank() coordinates become the first.
  void apply(int head, float* numbers) const {
    if (matrix_ == nullptr) {
      if (rotation_.dim != 0) rotation_.apply(numbers);
      return;
    }
    multiply(numbers, dim_, matrix_of(head), rank_);
  }
  /// In place: the first rank() of `numbers` are coordinates, which become dim() features.
  void undo(int head, float* numbers) const {
    if (matrix_ == nullptr) {
      if (rotation_.dim != 0) rotation_.undo(numbers);
      return;
    }
    multiply(numbers, rank_, transposed_of(head), dim_);
  }

  /// [dim, rank] of a head: coordinates times it are features. Null where there is no matrix.
  const float* matrix(int head) const { return matrix_ == nullptr ? nullptr : matrix_of(head); }

 private:
  static constexpr int kMostDim = 512;
  struct Matrix {
    std::size_t stride = 0;         ///< of a head; 0: shared
    std::vector<float> rows;        ///< [heads, dim, rank]
    std::vector<float> transposed;  ///< [heads, rank, dim]
  };

  /// In place: numbers[from] times rows [from, to]. In double, where products of floats are exact:
  /// coordinates, and so codes, are the same bits with and without fused multiply-add.
  static void multiply(float* numbers, int from, const float* row, int to) {
    double sums[kMostDim] = {};
    for (int at = 0; at < from; ++at, row += to) {
      const auto factor = static_cast<double>(numbers[at]);
      for (int column = 0; column < to; ++column)
        sums[column] += factor * static_cast<double>(row[column]);
    }
    for (int column = 0; column < to; ++column) numbers[column] = static_cast<float>(sums[column]);
  }
  const float* matrix_of(int head) const {
    return matrix_->rows.data() + static_cast<std::size_t>(head) * matrix_->stride;
  }
  const float* transposed_of(int head) const {
    return matrix_->transposed.data() + static_cast<std::size_t>(head) * matrix_->stride;
  }
  /// Takes `directions`, turned by the rotation where there is one.
  void set_matrix(const BasisMatrix& directions) {
    const auto size = static_cast<std::size_t>(dim_ * rank_);
    auto matrix = std::make_shared<Matrix>();
    matrix->stride = directions.heads == 1 ? 0 : size;
    matrix->rows = directions.columns;
    matrix->transposed.resize(matrix->rows.size());
    growth_ = 1.0F;
    for (int head = 0; head < directions.heads; ++head) {
      float* rows = matrix->rows.data() + static_cast<std::size_t>(head) * size;
      float* transposed = matrix->transposed.data() + static_cast<std::size_t>(head) * size;
      float growth[kMostDim] = {};
      for (int at = 0; at < dim_; ++at) {
        float* row = rows + at * rank_;
        if (rotation_.dim != 0) rotation_.apply(row);
        for (int to = 0; to < rank_; ++to) {
          transposed[to * dim_ + at] = row[to];
          growth[to] += std::abs(row[to]);
        }
      }
      growth_ = std::max(growth_, *std::max_element(growth, growth + rank_));
    }
    rotation_ = {};
    matrix_ = std::move(matrix);
  }

  int dim_ = 0;
  int rank_ = 0;
  float growth_ = 1.0F;
  Rotation rotation_{};                   ///< dim 0: none, or part of the matrix
  std::shared_ptr<const Matrix> matrix_;  ///< shared by copies; null: all of the space
};

}  // namespace kvast
