// SPDX-License-Identifier: Apache-2.0
// The device's order of codes against the CPU's.
#include "kvast/gpu/tiles.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "kvast/format/floats.h"
#include "tests/simt/tiles.h"
#include "tests/support/random.h"

namespace kvast::gpu {
namespace {

constexpr int kDims[] = {8, 16, 40, 48, 64, 72, 80, 96, 128, 136, 192, 256, 512};

template <class Format>
class Tiles : public testing::Test {};
using Formats = testing::Types<Int<2>, Int<4>, Int<8>, Fp8<E4M3>, Int<3>, F16>;
TYPED_TEST_SUITE(Tiles, Formats);

template <class Format, Part kPart>
void check(int dim) {
  test::Random random(static_cast<std::uint64_t>(dim));
  const auto numbers = random.normals(static_cast<std::size_t>(kBlockTokens * dim));
  const auto tiles = test::tiles_of<Format, kPart>(numbers, dim);
  const PayloadRows<Format, kPart> layout{dim};
  std::vector<std::byte> payload(static_cast<std::size_t>(layout.bytes()), std::byte{0x5A});
  from_tiles<Format, kPart>(tiles.data(), dim, payload.data());
  std::vector<std::byte> back(tiles.size(), std::byte{0xA5});
  to_tiles<Format, kPart>(payload.data(), dim, back.data());
  ASSERT_EQ(back, tiles) << Format::kName << ' ' << dim;
  std::vector<std::byte> again(payload.size(), std::byte{0xA5});
  from_tiles<Format, kPart>(back.data(), dim, again.data());
  ASSERT_EQ(again, payload) << Format::kName << ' ' << dim;
  if (dim % kBlockTokens == 0) {
    ASSERT_EQ(layout.bytes(), layout.bytes_in_tiles());
  }
  for (int token = 0; token < kBlockTokens; ++token) {
    for (int channel = 0; channel < dim; ++channel) {
      const int row = kPart == Part::keys ? channel : channel / 32 * 32 + token;
      const int column = kPart == Part::keys ? token : channel % 32;
      ASSERT_EQ(layout.number(payload.data(), token, channel),
                tile_number<Format>(tiles.data() + layout.tile(row), layout.rows_in_tile(),
                                    layout.columns(row), layout.row_in_tile(row), column))
          << Format::kName << ' ' << dim << ": token " << token << " channel " << channel;
    }
  }
}

TYPED_TEST(Tiles, GoThereAndBackBitForBit) {
  for (const int dim : kDims) {
    check<TypeParam, Part::keys>(dim);
    check<TypeParam, Part::values>(dim);
  }
}

/// Where warp.cuh says that a lane has its part of a 16 x 16 fragment `a`: with the width permuted
/// so that a lane's numbers are neighbours.
template <Part kPart>
void check_registers() {
  for (int lane = 0; lane < 32; ++lane) {
    for (int pair = 0; pair < 64; ++pair) {
      for (int second = 0; second < 2; ++second) {
        const LaneCode<kPart> mine{lane, pair, second};
        const BlockCode code = mine.code();
        const int row = kPart == Part::keys ? code.token : code.channel;
        const int width = kPart == Part::keys ? code.channel : code.token;
        const int of_register = pair % 4;
        ASSERT_EQ(row % 16, lane / 4 + (of_register % 2 == 1 ? 8 : 0));
        ASSERT_EQ(width % 16, lane % 4 * 4 + (of_register >= 2 ? 2 : 0) + second);
        const auto back = LaneCode<kPart>::of(code);
        ASSERT_EQ(back.lane, lane);
        ASSERT_EQ(back.pair, pair);
        ASSERT_EQ(back.second, second);
      }
    }
  }
}

TEST(Fragments, LanesReadTheirOwnRegisters) {
  check_registers<Part::keys>();
  check_registers<Part::values>();
}

template <int kBits>
void check_words() {
  for (const int dim : kDims) {
    const CodeWords<kBits> words{dim};
    std::set<int> begins;
    for (int lane = 0; lane < 32; ++lane) {
      for (int word = 0; word < words.words(); ++word) {
        const int begin = words.word(lane, word);
        ASSERT_EQ(begin % 4, 0);
        ASSERT_LE(begin + 4, words.bytes());
        ASSERT_TRUE(begins.insert(begin).second);
        if (word < words.chunks() * 4) {  // 16 bytes at once
          ASSERT_EQ(begin, word / 4 * 512 + lane * 16 + word % 4 * 4);
        }
      }
    }
    ASSERT_EQ(static_cast<int>(begins.size()) * 4, words.bytes());
  }
}

TEST(Fragments, WordsFillTheirBytesWithoutGaps) {
  check_words<2>();
  check_words<4>();
  check_words<8>();
}

}  // namespace
}  // namespace kvast::gpu
