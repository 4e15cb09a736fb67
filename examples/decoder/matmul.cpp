// SPDX-License-Identifier: Apache-2.0
// Matrix products: one token goes through the integer dot products, many through a blocked float
// product.
#include "examples/decoder/matmul.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace kvast::decoder {
namespace {

// The compiler's own vectors: one source for AVX-512, AVX2 and machines with neither.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 12;  // 12 x 2 accumulators of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;  // 6 x 2 of 16
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 6;
#endif
using Vector = float __attribute__((vector_size(kVectorBytes)));
constexpr int kVectorLanes = kVectorBytes / 4;

constexpr int kTaskRows =
    48;  // rows of one task: their floats and one panel share the second-level cache
constexpr int kDepth = 512;  // columns de-quantised at once
constexpr int kStride =
    kDepth + 16;  // not a power of two: 12 rows must not fall on the same cache sets
static_assert(kTaskRows % kTileRows == 0 && kPanelTokens % (2 * kVectorLanes) == 0);

Vector load(const float* from) {
  Vector out;
  std::memcpy(&out, from, sizeof out);
  return out;
}

void store(float* to, Vector vector) { std::memcpy(to, &vector, sizeof vector); }

/// output[row][token] (+)= sum over depth of weights[row][depth] * panel[depth][token], for two
/// vectors of tokens.
template <int kRows>
void multiply_tile(const float* weights, const float* panel, int depth, bool accumulate,
                   float* output) {
  Vector sums[kRows][2];
  for (int row = 0; row < kRows; ++row) {
    for (int half = 0; half < 2; ++half) {
      sums[row][half] =
          accumulate ? load(output + row * kPanelTokens + half * kVectorLanes) : Vector{};
    }
  }
  for (int column = 0; column < depth; ++column) {
    const Vector left = load(panel + column * kPanelTokens);
    const Vector right = load(panel + column * kPanelTokens + kVectorLanes);
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const float weight = weights[row * kStride + column];
      sums[row][0] += left * weight;
      sums[row][1] += right * weight;
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int half = 0; half < 2; ++half) {
      store(output + row * kPanelTokens + half * kVectorLanes, sums[row][half]);
    }
  }
}

/// A tile of any height up to kTileRows; only the last rows of a matrix are fewer.
template <int kRows = kTileRows>
void multiply_rows_of_tile(int rows, const float* weights, const float* panel, int depth,
                           bool accumulate, float* output) {
  if (rows == kRows) return multiply_tile<kRows>(weights, panel, depth, accumulate, output);
  if constexpr (kRows > 1) {
    multiply_rows_of_tile<kRows - 1>(rows, weights, panel, depth, accumulate, output);
  }
}

void multiply_block(const Product& product, const Panels& input, int first, int rows) {
  alignas(64) float weights[kTaskRows * kStride];
  const int columns = product.weights.columns;
  const int chunks = (columns + kDepth - 1) / kDepth;
  const int step = ((columns + chunks - 1) / chunks + kBlock - 1) / kBlock * kBlock;
  for (int column = 0; column < columns; column += step) {
    const int depth = std::min(step, columns - column);
    for (int row = 0; row < rows; ++row) {
      dequantize(product.weights, first + row, column, depth, weights + row * kStride);
    }
    const bool accumulate = product.accumulate || column > 0;
    for (int panel = 0; panel < input.panels(); ++panel) {
      const float* from = input.at(panel, column);
      float* output = product.output.at(panel, product.first_feature + first);
      for (int row = 0; row < rows; row += kTileRows) {
        for (int token = 0; token < kPanelTokens; token += 2 * kVectorLanes) {
          multiply_rows_of_tile(std::min(kTileRows, rows - row), weights + row * kStride,
                                from + token, depth, accumulate,
                                output + row * kPanelTokens + token);
        }
      }
    }
  }
}

void multiply_vector(const Product& product, const float* input, const IntegerVector* integers,
                     int first, int rows) {
  float sums[kTaskRows];
  if (integers != nullptr && product.weights.blocked()) {
    multiply_rows(product.weights, first, rows, *integers, sums);
  } else {
    multiply_rows(product.weights, first, rows, input, sums);
  }
  float* output = product.output.at(0, product.first_feature + first);
  for (int row = 0; row < rows; ++row) {
    output[row] = product.accumulate ? output[row] + sums[row] : sums[row];
  }
}

}  // namespace

void multiply(const Executor& executor, const Panels& input,
              std::initializer_list<Product> products, Precision precision,
              MatmulScratch& scratch) {
  const bool single = input.lanes() == 1;
  bool integers = false;
  int tasks = 0;
  for (const Product& product : products) {
    tasks += (product.weights.rows + kTaskRows - 1) / kTaskRows;
    integers = integers || (single && precision == Precision::fast && product.weights.blocked());
  }
  if (integers) {
    scratch.integers.assign({input.at(0, 0), static_cast<std::size_t>(input.features())});
  }
  const IntegerVector* vector = integers ? &scratch.integers : nullptr;
  executor.parallel_for(tasks, [&](int task) {
    for (const Product& product : products) {
      const int rows = product.weights.rows;
      const int product_tasks = (rows + kTaskRows - 1) / kTaskRows;
      if (task >= product_tasks) {
        task -= product_tasks;
        continue;
      }
      const int first = task * kTaskRows;
      const int count = std::min(kTaskRows, rows - first);
      if (single) return multiply_vector(product, input.at(0, 0), vector, first, count);
      return multiply_block(product, input, first, count);
    }
  });
}

}  // namespace kvast::decoder
