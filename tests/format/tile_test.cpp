// SPDX-License-Identifier: Apache-2.0
// Tiles: encode, decode, single rows and columns, and the product, for every format and width.
#include "kvast/format/tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "kvast/core/rotation.h"
#include "kvast/format/codebook.h"
#include "kvast/format/floats.h"
#include "kvast/format/fp8.h"
#include "kvast/format/integer.h"
#include "kvast/host/codec.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast {
namespace {

template <class Format>
class Tile : public testing::Test {};
using Formats = testing::Types<F32, F16, BF16, Fp8<E4M3>, Fp8<E5M2>, Int<2>, Int<3>, Int<4>, Int<8>,
                               Codebook<2>, Codebook<3>, Codebook<4>>;
TYPED_TEST_SUITE(Tile, Formats);

/// Of one number of N(0, 1), relative to 1 + its magnitude.
template <class Format>
double allowed() {
  if constexpr (CodedFormat<Format>) {
    return Format::kBits == 2 ? 1.2 : Format::kBits == 8 ? 0.02 : 0.5;
  } else {
    return sizeof(typename Format::Element) == 4   ? 0.0
           : sizeof(typename Format::Element) == 2 ? 5e-3
                                                   : 0.13;
  }
}

/// What a product may lack. A row that meets codes is rounded to one or two bytes of its largest
/// number, and that rounding meets half of a group's range.
template <class Format>
double lost(int depth, double largest, double range) {
  if constexpr (CodedFormat<Format>)
    return depth * largest * range / 4.0 / (Format::kDigits == 1 ? 127.0 : 8000.0);
  return 0.0;
}

std::size_t at(int row, int stride, int column) {
  return static_cast<std::size_t>(row) * static_cast<std::size_t>(stride) +
         static_cast<std::size_t>(column);
}

TYPED_TEST(Tile, DecodesWhatItEncoded) {
  test::Random random(1);
  for (const int rows : {8, 32, 40, 512}) {
    for (const int columns : {8, 16, 24, 32}) {
      const int stride = columns + 5;
      const std::vector<float> numbers = random.normals(at(rows, stride, 0));
      std::vector<std::byte> tile(tile_bytes<TypeParam>(rows, columns));
      tile_encode<TypeParam>(numbers.data(), stride, rows, columns, tile.data());
      std::vector<float> decoded(at(rows, stride, 0), -77.0F);
      tile_decode<TypeParam>(tile.data(), rows, columns, decoded.data(), stride);
      for (int row = 0; row < rows; ++row) {
        for (int column = 0; column < stride; ++column) {
          const float got = decoded[at(row, stride, column)];
          if (column >= columns) {
            ASSERT_EQ(got, -77.0F) << "wrote between rows";
          } else {
            const float wanted = numbers[at(row, stride, column)];
            ASSERT_NEAR(got, wanted, allowed<TypeParam>() * (1.0 + std::abs(wanted)));
            ASSERT_EQ(got, tile_number<TypeParam>(tile.data(), rows, columns, row, column));
          }
        }
      }
    }
  }
}

/// Of the bytes of a tile of 40 rows, half of which were rotated; found with g++ 12 on x86-64.
const std::map<std::string, std::uint64_t> kGoldenBytes{
    {"f32", 8398109355945689082U},       {"f16", 1123603273483511837U},
    {"bf16", 9602106740731696790U},      {"fp8-e4m3", 8518368046693159233U},
    {"fp8-e5m2", 18379508220751586815U}, {"int2", 14231868924275120867U},
    {"int3", 3174187212269982511U},      {"int4", 10386758061013922539U},
    {"int8", 16499347912286451753U},     {"code2", 815433752670523315U},
    {"code3", 16124535700342611537U},    {"code4", 13977512038666992238U},
};

template <class Format>
std::uint64_t hash_of_bytes() {
  test::Random random(9);
  const Rotation rotation = Rotation::of(32, 5);
  std::vector<float> numbers(40 * 32);
  // sums of uniforms, since a libm may differ in the last bit
  for (float& number : numbers)
    number = static_cast<float>(8.0 * (random.uniform() + random.uniform() - 1.0));
  for (std::size_t row = 0; row < 40; row += 2) rotation.apply(numbers.data() + row * 32);
  std::vector<std::byte> tile(tile_bytes<Format>(40, 32));
  tile_encode<Format>(numbers.data(), 32, 40, 32, tile.data());
  std::uint64_t hash = 0;
  for (const std::byte byte : tile) hash = test::mix(hash ^ static_cast<std::uint64_t>(byte));
  return hash;
}

TYPED_TEST(Tile, BytesAreTheSameInEveryBuild) {
  EXPECT_EQ(hash_of_bytes<TypeParam>(), kGoldenBytes.at(TypeParam::kName));
}

TYPED_TEST(Tile, SingleBytesOfAUnitAreThoseOfTheWhole) {
  if constexpr (CodedFormat<TypeParam>) {
    constexpr int kBits = TypeParam::kBits;
    test::Random random(5);
    std::uint8_t codes[kUnitRows][kBlockTokens];
    for (auto& row : codes) {
      for (std::uint8_t& code : row) code = static_cast<std::uint8_t>(random.below(1 << kBits));
    }
    std::byte unit[unit_bytes<kBits>()];
    unit_pack<kBits>(codes, unit);
    for (int byte = 0; byte < static_cast<int>(sizeof unit); ++byte)
      ASSERT_EQ(unit_byte<kBits>(codes, byte), static_cast<std::uint8_t>(unit[byte])) << byte;
  }
}

TYPED_TEST(Tile, CopiesARowAsItIs) {
  test::Random random(2);
  for (const int columns : {8, 24, 32}) {
    const std::vector<float> numbers = random.normals(at(32, columns, 0));
    const std::vector<float> others = random.normals(at(32, columns, 0));
    std::vector<std::byte> from(tile_bytes<TypeParam>(32, columns));
    std::vector<std::byte> to(from.size());
    tile_encode<TypeParam>(numbers.data(), columns, 32, columns, from.data());
    tile_encode<TypeParam>(others.data(), columns, 32, columns, to.data());
    std::vector<float> source(numbers.size());
    std::vector<float> before(numbers.size());
    std::vector<float> after(numbers.size());
    tile_decode<TypeParam>(from.data(), 32, columns, source.data(), columns);
    tile_decode<TypeParam>(to.data(), 32, columns, before.data(), columns);
    tile_copy_row<TypeParam>(from.data(), 31, to.data(), 4, 32, columns);
    tile_decode<TypeParam>(to.data(), 32, columns, after.data(), columns);
    for (int row = 0; row < 32; ++row) {
      for (int column = 0; column < columns; ++column) {
        const float wanted =
            row == 4 ? source[at(31, columns, column)] : before[at(row, columns, column)];
        ASSERT_EQ(after[at(row, columns, column)], wanted) << row;
      }
    }
  }
}

TYPED_TEST(Tile, ProductEqualsTheProductWithDecodedNumbers) {
  test::Random random(3);
  const Codec& codec = kCodec<TypeParam, Simd>;
  for (const int depth : {8, 32, 40, 128, 512}) {
    for (const int columns : {8, 16, 24, 32}) {
      for (const int rows : {1, 2, 3, 4, 5, 7, 13, 64}) {
        const std::vector<float> numbers = random.normals(at(depth, columns, 0));
        const std::vector<float> a = random.normals(at(rows, depth + 3, 0));
        std::vector<std::byte> tile(codec.tile_bytes(depth, columns));
        codec.encode(numbers.data(), columns, depth, columns, tile.data());
        if (columns != kBlockTokens && depth > kBlockTokens) continue;  // only V tiles are narrow
        std::vector<float> decoded(numbers.size());
        codec.decode(tile.data(), depth, columns, decoded.data(), columns);
        const auto magnitude = [](float x, float y) { return std::abs(x) < std::abs(y); };
        const double largest =
            static_cast<double>(std::abs(*std::max_element(a.begin(), a.end(), magnitude)));
        double range = 0.0;
        for (int step = 0; step < depth; ++step) {
          const auto row = decoded.begin() + step * columns;
          const auto [low, high] = std::minmax_element(row, row + columns);
          range = std::max(range, static_cast<double>(*high - *low));
        }
        if (TypeParam::kName == std::string("int8")) range *= 2.0;  // its range is symmetric
        const std::vector<float> start = random.normals(at(rows, columns + 1, 0));
        std::vector<float> c = start;
        codec.multiply(a.data(), depth + 3, rows, depth, tile.data(), columns, c.data(),
                       columns + 1, tile.data(), {});
        for (int row = 0; row < rows; ++row) {
          for (int column = 0; column <= columns; ++column) {
            double wanted = static_cast<double>(start[at(row, columns + 1, column)]);
            double size = std::abs(wanted);
            for (int step = 0; column < columns && step < depth; ++step) {
              const double term = static_cast<double>(a[at(row, depth + 3, step)]) *
                                  static_cast<double>(decoded[at(step, columns, column)]);
              wanted += term;
              size += std::abs(term);
            }
            const double slack = lost<TypeParam>(depth, largest, range) + 1e-6 * size;
            ASSERT_NEAR(c[at(row, columns + 1, column)], wanted, slack)
                << codec.name << " depth " << depth << " columns " << columns << " rows " << rows;
          }
        }
      }
    }
  }
}

template <class Format>
void expect_columns_move() {
  test::Random random(4);
  const int rows = 40;
  std::vector<std::byte> one(tile_bytes<Format>(rows, 32));
  std::vector<std::byte> two(one.size());
  const std::vector<float> column = random.normals(static_cast<std::size_t>(rows));
  tile_write_column<Format>(column.data(), one.data(), rows, 31);
  tile_copy_column<Format>(one.data(), 31, two.data(), 3, rows);
  std::vector<float> decoded(at(rows, 32, 0));
  tile_decode<Format>(two.data(), rows, 32, decoded.data(), 32);
  for (int row = 0; row < rows; ++row) {
    for (int slot = 0; slot < 32; ++slot) {
      const double wanted =
          slot == 3 ? static_cast<double>(column[static_cast<std::size_t>(row)]) : 0.0;
      EXPECT_NEAR(decoded[at(row, 32, slot)], wanted, 4e-3 * std::abs(wanted));
    }
  }
}

TEST(DenseTile, WritesAndMovesSingleColumns) {
  expect_columns_move<F32>();
  expect_columns_move<F16>();
  expect_columns_move<BF16>();
}

TEST(DenseTile, HoldsHalvesThatAreRoundedToNearestEven) {
  test::Random random(5);
  const std::vector<float> numbers = random.normals(32);
  std::vector<std::byte> tile(tile_bytes<F16>(1, 32));
  tile_encode<F16>(numbers.data(), 32, 1, 32, tile.data());
  for (int column = 0; column < 32; ++column) {
    const half element = reinterpret_cast<const half*>(tile.data())[column];
    EXPECT_EQ(static_cast<double>(to_float(element)),
              test::nearest_half(static_cast<double>(numbers[static_cast<std::size_t>(column)])));
  }
}

}  // namespace
}  // namespace kvast
