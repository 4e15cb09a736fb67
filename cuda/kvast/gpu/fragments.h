// SPDX-License-Identifier: Apache-2.0
// Where the codes of a device block lie: this file alone knows. A lane of a warp that multiplies
// codes by tensor cores (m16n8k16, warp.cuh) reads, 16 bytes at a time, exactly the codes of its
// own part of each fragment, so that nothing is shuffled, and a word's codes come in pairs that
// a shift, if any, and a mask make halves of (code_pairs.h).
//
// Keys are the fragments [16 tokens, 16 channels], values [16 channels, 16 tokens]: what the
// product sums over is a fragment's width. A lane has four neighbours of that width:
//   lane      8 rows of the fragment by 4 quarters of its width
//   pair      (channel / 16 * 2 + token / 16) * 4 + register: two neighbours of the width
//   word      16 / bits pairs; pair j has its codes at bits j * bits and 16 + j * bits
//   chunk     four words of a lane, one line of 32 lanes after the other; what is left of a lane's
//             words, where they are no multiple of four, stands together as well
#pragma once

#include "kvast/core/group.h"
#include "kvast/format/fp8.h"
#include "kvast/format/integer.h"

namespace kvast::gpu {

/// Which of a token's vectors.
enum class Part : std::uint8_t { keys, values };

/// Formats whose codes lie in this order. Others lie as on the CPU (format/tile.h).
template <class Format>
inline constexpr bool kInFragments = false;
template <>
inline constexpr bool kInFragments<Int<2>> = true;
template <>
inline constexpr bool kInFragments<Int<4>> = true;
template <>
inline constexpr bool kInFragments<Int<8>> = true;
template <>
inline constexpr bool kInFragments<Fp8<E4M3>> = true;

/// Bits of a code, and halves of metadata per group.
template <class Format>
KVAST_HD constexpr int code_bits() {
  if constexpr (CodedFormat<Format>) {
    return Format::kBits;
  } else {
    return 8 * static_cast<int>(sizeof(typename Format::Element));
  }
}
template <class Format>
KVAST_HD constexpr int code_planes() {
  if constexpr (CodedFormat<Format>) return Format::kPlanes;
  return 0;
}

inline constexpr int kFragment = 16;  ///< rows and width
inline constexpr int kFragmentLanes = 32;
inline constexpr int kChunkWords = 4;

/// One code of a block of 32 tokens.
struct BlockCode {
  int token = 0;
  int channel = 0;
};

/// A code as the lane that multiplies it sees it.
template <Part kPart>
struct LaneCode {
  int lane = 0;
  int pair = 0;
  int second = 0;  ///< of the pair: 0 or 1

  KVAST_HD static LaneCode of(BlockCode code) {
    const int width = kPart == Part::keys ? code.channel : code.token;
    const int row = kPart == Part::keys ? code.token : code.channel;
    const int fragment = code.channel / kFragment * 2 + code.token / kFragment;
    return {.lane = row % 8 * 4 + width % kFragment / 4,
            .pair = fragment * 4 + row % kFragment / 8 + width % 4 / 2 * 2,
            .second = width % 2};
  }
  KVAST_HD BlockCode code() const {
    const int width = lane % 4 * 4 + pair % 4 / 2 * 2 + second;
    const int row = lane / 4 + pair % 2 * 8;
    const int fragment = pair / 4;
    return {.token = fragment % 2 * kFragment + (kPart == Part::keys ? row : width),
            .channel = fragment / 2 * kFragment + (kPart == Part::keys ? width : row)};
  }
};

/// The codes of `channels` channels of 32 tokens. Channels come in sixteens; those that a head does
/// not have are codes of 0.
template <int kBits>
struct CodeWords {
  static constexpr int kPairs = 16 / kBits;  ///< of a word
  int channels = 0;

  /// Of a lane.
  KVAST_HD constexpr int words() const {
    return (channels + kFragment - 1) / kFragment * kFragment * kBits / 32;
  }
  KVAST_HD constexpr int bytes() const { return words() * kFragmentLanes * 4; }
  /// Whole chunks of a lane, and words behind them.
  KVAST_HD constexpr int chunks() const { return words() / kChunkWords; }
  KVAST_HD constexpr int rest() const { return words() % kChunkWords; }
  /// Byte where a lane's word begins.
  KVAST_HD int word(int lane, int at) const {
    const int chunk = at / kChunkWords;
    const int together = chunk < chunks() ? kChunkWords : rest();
    return (chunk * kFragmentLanes * kChunkWords + lane * together + at % kChunkWords) * 4;
  }
  /// Bit of the word that a code begins at.
  KVAST_HD static int shift(int pair, int second) { return pair % kPairs * kBits + 16 * second; }
};

}  // namespace kvast::gpu
