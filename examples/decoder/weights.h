// SPDX-License-Identifier: Apache-2.0
// One weight matrix as it lies in the model file, and the two ways to read a row: as floats, or
// multiplied at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "examples/decoder/gguf.h"

namespace kvast::decoder {

inline constexpr int kBlock = 32;  ///< numbers that share a scale in Q4_0, Q4_1 and Q8_0

/// [rows, columns], row by row; the bytes belong to the file.
struct Matrix {
  TensorType type = TensorType::f32;
  int rows = 0;
  int columns = 0;
  std::size_t row_bytes = 0;
  const std::byte* data = nullptr;

  Matrix() = default;
  /// Takes a tensor of rank 1 (one row) or 2. Throws FileError for a higher rank.
  explicit Matrix(const Tensor& tensor);

  const std::byte* row(int index) const {
    return data + row_bytes * static_cast<std::size_t>(index);
  }
  bool blocked() const { return layout_of(type).block == kBlock; }
};

/// Writes columns [first, first + count) of a row as floats; both multiples of 32 where the type is
/// blocked.
void dequantize(const Matrix& weights, int row, int first, int count, float* output);

/// A vector ready for integer products: per block of 32, number = scale * (128 * high + low), 15
/// bits in all. With the upper plane alone, 8 bits, the likeliest token of SmolLM2-135M changed at
/// 21 of the first 600 positions of data/story.txt, with both at none, for a sixth more time per
/// step.
class IntegerVector {
 public:
  /// `numbers` has a multiple of 32 elements. Allocates only when it grows.
  void assign(std::span<const float> numbers);

  int blocks() const { return static_cast<int>(scales.size()); }

  std::vector<std::int8_t> high, low;  ///< [columns]
  std::vector<float> scales;           ///< [columns / 32]
  std::vector<float> sums;  ///< [columns / 32]: sum of the block's numbers as represented
};

/// Products of `count` neighbouring rows with a vector of `columns` numbers. Rows are independent:
/// the same row gives the same bits whatever its neighbours. The first needs a blocked type.
void multiply_rows(const Matrix& weights, int first, int count, const IntegerVector& vector,
                   float* output);
void multiply_rows(const Matrix& weights, int first, int count, const float* vector, float* output);

/// The first of the two in plain C++, whatever the machine; the other is tested against it.
void multiply_rows_portable(const Matrix& weights, int first, int count,
                            const IntegerVector& vector, float* output);

}  // namespace kvast::decoder
