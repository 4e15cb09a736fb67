// SPDX-License-Identifier: Apache-2.0
// quantize, dequantize and gather over the caller's strides: the CPU codecs' codes, for every
// format and element.
#include "kvast/gpu/quantize.cuh"

#include <gtest/gtest.h>

#include <vector>

#include "kvast/format/codebook.h"
#include "kvast/format/floats.h"
#include "kvast/format/fp8.h"
#include "kvast/format/integer.h"
#include "kvast/gpu/tiles.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast::gpu {
namespace {

using test::DeviceVector;
using test::TestDevice;

template <class Format>
class Quantized : public testing::Test {};
using Formats = testing::Types<F16, Fp8<E4M3>, Fp8<E5M2>, Int<2>, Int<3>, Int<4>, Int<8>,
                               Codebook<2>, Codebook<4>>;
TYPED_TEST_SUITE(Quantized, Formats);

constexpr int kTokens = 96;
constexpr int kHeads = 2;
constexpr int kHeadStride = 90;
constexpr int kRowStride = 2 * kHeadStride + 6;

/// A block of 32 tokens of a head as the CPU encodes it.
template <class Format, Part kPart>
std::vector<std::byte> wanted_block(const std::vector<float>& numbers, int block, int head,
                                    int dim) {
  const auto at = [&](int token, int channel) {
    return numbers[static_cast<std::size_t>((block * kBlockTokens + token) * kRowStride +
                                            head * kHeadStride + channel)];
  };
  std::vector<std::byte> bytes;
  if constexpr (kPart == Part::keys) {
    std::vector<float> rows;
    for (int channel = 0; channel < dim; ++channel) {
      for (int token = 0; token < kBlockTokens; ++token) rows.push_back(at(token, channel));
    }
    bytes.resize(tile_bytes<Format>(dim, kBlockTokens));
    tile_encode<Format>(rows.data(), kBlockTokens, dim, kBlockTokens, bytes.data());
  } else {
    for (int first = 0; first < dim; first += kBlockTokens) {
      const int columns = std::min(dim - first, kBlockTokens);
      std::vector<float> rows;
      for (int token = 0; token < kBlockTokens; ++token) {
        for (int channel = 0; channel < columns; ++channel)
          rows.push_back(at(token, first + channel));
      }
      std::vector<std::byte> tile(tile_bytes<Format>(kBlockTokens, columns));
      tile_encode<Format>(rows.data(), columns, kBlockTokens, columns, tile.data());
      bytes.insert(bytes.end(), tile.begin(), tile.end());
    }
  }
  return bytes;
}

template <class Format, Part kPart, class Number>
void check(const DeviceVector<Number>& numbers, const std::vector<float>& as_floats, int dim) {
  const auto bytes = static_cast<std::size_t>(quantized_bytes<Format, kPart>(kTokens, kHeads, dim));
  DeviceVector<std::byte> codes(bytes);
  ASSERT_TRUE(
      (quantize<TestDevice, Format, kPart>({numbers.data(), kRowStride, kHeadStride}, kTokens,
                                           kHeads, dim, codes.data(), test::stream())));
  DeviceVector<float> decoded(static_cast<std::size_t>(kTokens * kHeads * dim));
  ASSERT_TRUE((dequantize<TestDevice, Format, kPart>(codes.data(), kTokens, kHeads, dim,
                                                     decoded.data(), test::stream())));
  test::wait();
  const PayloadRows<Format, kPart> layout{dim};
  const std::byte* got = codes.data();
  for (int block = 0; block < kTokens / kBlockTokens; ++block) {
    for (int head = 0; head < kHeads; ++head) {
      const auto wanted = wanted_block<Format, kPart>(as_floats, block, head, dim);
      ASSERT_EQ(static_cast<std::int64_t>(wanted.size()), layout.bytes_in_tiles());
      std::vector<std::byte> tiles(wanted.size(), std::byte{0xA5});
      to_tiles<Format, kPart>(got, dim, tiles.data());
      ASSERT_EQ(tiles, wanted) << Format::kName << ' ' << dim;
      for (int token = 0; token < kBlockTokens; ++token) {
        for (int channel = 0; channel < dim; ++channel) {
          const int row = (block * kBlockTokens + token) * kHeads + head;
          ASSERT_EQ(decoded[static_cast<std::size_t>(row * dim + channel)],
                    layout.number(got, token, channel));
        }
      }
      got += layout.bytes();
    }
  }
}

TYPED_TEST(Quantized, BytesAreThoseOfTheProcessor) {
  test::Random random(8);
  const std::vector<float> floats = random.normals(kTokens * kRowStride);
  DeviceVector<half> halves;
  DeviceVector<bfloat16> bfloats;
  std::vector<float> of_halves;
  std::vector<float> of_bfloats;
  for (const float number : floats) {
    halves.push_back(to_half(number));
    of_halves.push_back(to_float(halves.back()));
    bfloats.push_back(BF16::element(number));
    of_bfloats.push_back(BF16::number(bfloats.back()));
  }
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    for (const int dim : {8, 40, 64}) {
      check<TypeParam, Part::keys>(test::on_device(floats), floats, dim);
      check<TypeParam, Part::values>(test::on_device(floats), floats, dim);
    }
    check<TypeParam, Part::keys>(halves, of_halves, 72);
    check<TypeParam, Part::values>(bfloats, of_bfloats, 72);
  }
}

TEST(Gather, RowsAreCopiedWithTheirStrides) {
  test::begin_schedule(test::kSchedules[0]);
  test::Random random(2);
  const auto from = test::on_device(random.normals(50 * kRowStride));
  const DeviceVector<int> tokens = {7, 0, 49, 7};
  DeviceVector<half> to(4 * 2 * 90);
  ASSERT_TRUE(gather<TestDevice>(tokens.data(), 4, {from.data(), kRowStride, kHeadStride}, kHeads,
                                 88, {to.data(), 90, 360}, test::stream()));
  test::wait();
  for (int row = 0; row < 4; ++row) {
    for (int head = 0; head < kHeads; ++head) {
      for (int dim = 0; dim < 88; ++dim) {
        const auto source = static_cast<std::size_t>(
            tokens[static_cast<std::size_t>(row)] * kRowStride + head * kHeadStride + dim);
        ASSERT_EQ(to[static_cast<std::size_t>(row * 90 + head * 360 + dim)], to_half(from[source]));
      }
    }
  }
}

TEST(Quantize, MisuseIsRefusedByName) {
  const std::vector<float> numbers(32 * 8);
  std::byte codes[1024];
  const auto call = [&](int tokens, int heads, int dim, std::byte* to) {
    (void)quantize<TestDevice, Int<4>, Part::keys>(numbers.data(), tokens, heads, dim, to,
                                                   test::stream());
  };
  test::expect_refused([&] { call(33, 1, 8, codes); }, {"tokens is 33"});
  test::expect_refused([&] { call(32, 0, 8, codes); }, {"heads is 0"});
  test::expect_refused([&] { call(32, 1, 12, codes); }, {"dim is 12"});
  test::expect_refused([&] { call(32, 1, 8, nullptr); }, {"to must not be null"});
}

}  // namespace
}  // namespace kvast::gpu
