// SPDX-License-Identifier: Apache-2.0
// Products with stored weights against the same numbers in double.
#include "examples/decoder/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kvast/host/openmp.h"
#include "tests/examples/decoder/tiny_model.h"

namespace kvast::decoder {
namespace {

constexpr TensorType kTypes[] = {TensorType::f32, TensorType::f16, TensorType::q4_0,
                                 TensorType::q4_1, TensorType::q8_0};

Matrix view(TensorType type, int rows, int columns, const StoredMatrix& stored) {
  Tensor tensor{.type = type, .rank = 2, .extents = {columns, rows, 1, 1}, .data = {}};
  tensor.data = std::as_bytes(std::span<const char>(stored.bytes.data(), stored.bytes.size()));
  return Matrix(tensor);
}

std::vector<float> random_numbers(int count, std::mt19937& random) {
  std::normal_distribution<float> number(0.0F, 1.0F);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& each : out) each = number(random);
  return out;
}

/// The product in double, and the size of its terms, to which float's error is proportional.
struct Expected {
  double sum = 0, size = 0;
};
Expected expected(const StoredMatrix& matrix, int row, const float* input, int columns) {
  Expected out;
  for (int column = 0; column < columns; ++column) {
    const double term = matrix.numbers[static_cast<std::size_t>(row * columns + column)] *
                        static_cast<double>(input[column]);
    out.sum += term;
    out.size += std::fabs(term);
  }
  return out;
}

TEST(Matmul, OfAnyShapeTypeAndNumberOfTokens) {
  std::mt19937 random(5);
  for (const TensorType type : kTypes) {
    for (const auto& [rows, columns] :
         {std::pair{1, 32}, {12, 64}, {47, 96}, {48, 576}, {49, 1536}, {97, 544}}) {
      const StoredMatrix stored = random_matrix(type, rows, columns, random);
      const Matrix matrix = view(type, rows, columns, stored);
      for (const int tokens : {1, 2, 31, 32, 33, 70}) {
        const auto numbers = random_numbers(tokens * columns, random);
        Panels input, output;
        input.resize(tokens, columns);
        output.resize(tokens, rows + 3);
        const int last = output.panels() - 1;
        for (int panel = 0; panel < input.panels(); ++panel) {
          for (int token = 0; token < input.live(panel); ++token) {
            for (int column = 0; column < columns; ++column) {
              input.at(panel, column)[token] = numbers[static_cast<std::size_t>(
                  (panel * input.lanes() + token) * columns + column)];
            }
          }
          for (int row = 0; row < rows + 3; ++row) {
            for (int lane = 0; lane < output.lanes(); ++lane) output.at(panel, row)[lane] = 0.5F;
          }
        }
        MatmulScratch scratch;
        multiply(openmp(2), input, {{matrix, output, 2, true}}, Precision::fast, scratch);
        for (int token = 0; token < tokens; ++token) {
          for (int row = 0; row < rows; ++row) {
            const Expected want = expected(stored, row, numbers.data() + token * columns, columns);
            const float got = output.at(token / output.lanes(), row + 2)[token % output.lanes()];
            EXPECT_NEAR(static_cast<double>(got), want.sum + 0.5, 1e-4 * want.size + 1e-6);
          }
        }
        EXPECT_EQ(output.at(last, 1)[0], 0.5F);
        EXPECT_EQ(output.at(last, rows + 2)[0], 0.5F);
      }
    }
  }
}

TEST(Matmul, SeveralProductsOfOneInput) {
  std::mt19937 random(6);
  const StoredMatrix first = random_matrix(TensorType::q4_1, 100, 64, random);
  const StoredMatrix second = random_matrix(TensorType::f32, 30, 64, random);
  const auto numbers = random_numbers(64, random);
  Panels input, output;
  input.resize(1, 64);
  output.resize(1, 130);
  std::copy(numbers.begin(), numbers.end(), input.at(0, 0));
  const Matrix matrices[] = {view(TensorType::q4_1, 100, 64, first),
                             view(TensorType::f32, 30, 64, second)};
  MatmulScratch scratch;
  multiply(serial(), input, {{matrices[0], output, 0}, {matrices[1], output, 100}}, Precision::fast,
           scratch);
  for (int row = 0; row < 130; ++row) {
    const Expected want = row < 100 ? expected(first, row, numbers.data(), 64)
                                    : expected(second, row - 100, numbers.data(), 64);
    EXPECT_NEAR(static_cast<double>(*output.at(0, row)), want.sum, 1e-4 * want.size);
  }
}

TEST(Matmul, PortableAndVectorCodeAgree) {
  std::mt19937 random(7);
  for (const TensorType type : {TensorType::q4_0, TensorType::q4_1, TensorType::q8_0}) {
    const int rows = 11, columns = 608;
    const StoredMatrix stored = random_matrix(type, rows, columns, random);
    const Matrix matrix = view(type, rows, columns, stored);
    auto numbers = random_numbers(columns, random);
    numbers[40] = 300.0F;
    IntegerVector vector;
    vector.assign(numbers);
    float fast[rows], portable[rows], exact[rows];
    multiply_rows(matrix, 0, rows, vector, fast);
    multiply_rows_portable(matrix, 0, rows, vector, portable);
    multiply_rows(matrix, 0, rows, numbers.data(), exact);
    for (int row = 0; row < rows; ++row) {
      const Expected want = expected(stored, row, numbers.data(), columns);
      EXPECT_NEAR(fast[row], portable[row], 1e-6 * want.size);
      EXPECT_NEAR(static_cast<double>(exact[row]), want.sum, 1e-6 * want.size);
      EXPECT_NEAR(static_cast<double>(fast[row]), want.sum, 1e-4 * want.size);
    }
  }
}

TEST(Matmul, ExtremeCodesDoNotOverflow) {
  StoredMatrix stored;
  GgufWriter::number(stored.bytes, to_half(1.0F).bits);
  for (int code = 0; code < 32; ++code) GgufWriter::number(stored.bytes, std::int8_t{-128});
  const Matrix matrix = view(TensorType::q8_0, 1, 32, stored);
  IntegerVector vector;
  vector.assign(std::vector<float>(32, 127.0F));
  float product = 0;
  multiply_rows(matrix, 0, 1, vector, &product);
  EXPECT_NEAR(product, -128.0F * 127.0F * 32.0F, 1.0F);
}

TEST(IntegerVector, ZerosTinyAndBrokenNumbers) {
  IntegerVector vector;
  std::vector<float> numbers(96, 0.0F);
  numbers[32] = 1e-42F;
  numbers[64] = std::numeric_limits<float>::infinity();
  vector.assign(numbers);
  EXPECT_EQ(vector.sums[0], 0.0F);
  EXPECT_EQ(vector.sums[1], 0.0F);
  EXPECT_TRUE(std::isnan(vector.scales[2]));
  numbers[64] = std::numeric_limits<float>::quiet_NaN();
  vector.assign(numbers);
  EXPECT_TRUE(std::isnan(vector.scales[2]));
}

TEST(IntegerVector, KeepsFifteenBits) {
  std::mt19937 random(8);
  const auto numbers = random_numbers(320, random);
  IntegerVector vector;
  vector.assign(numbers);
  for (std::size_t at = 0; at < numbers.size(); ++at) {
    const float back =
        vector.scales[at / 32] * static_cast<float>(128 * vector.high[at] + vector.low[at]);
    EXPECT_NEAR(back, numbers[at], vector.scales[at / 32] * 0.51F);
  }
}

}  // namespace
}  // namespace kvast::decoder
