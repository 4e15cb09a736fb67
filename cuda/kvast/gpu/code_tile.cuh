// SPDX-License-Identifier: Apache-2.0
// A coded block's keys or values in shared memory, as attention's products read them.
#pragma once

#include "kvast/gpu/attend_tile.cuh"
#include "kvast/gpu/code_pairs.h"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/payload.h"

namespace kvast::gpu {

/// Four neighbouring halves: of one lane, in a fragment's width.
struct alignas(8) FourHalves {
  std::uint32_t pairs[2];
};

/// Queries and a block's scales of keys are multiplied by powers of two that bring the largest of
/// them just below these powers: then products are halves. Half of the range to either, so that
/// numbers of both down to a 2^22th of their largest are normal halves.
inline constexpr int kQueryPower = 8;
inline constexpr int kScalePower = 8;
static_assert(kQueryPower + kScalePower == 16);  // 2^16 (1 - 2^-11)^2 is a half

/// A factor of weights that scales of values below 2 bear: at most 1 becomes at most 2^14.
inline constexpr int kMostPower = 14;

/// As the payload of a head of kDim channels: metadata, then the codes' chunks of 16 bytes, each
/// whole. Where the head has fewer channels the rest is zeros.
template <class FormatType, Part kPart, int kDim>
struct CodeTile {
  using Format = FormatType;
  static constexpr int kBits = code_bits<Format>();
  static constexpr int kPlanes = code_planes<Format>();
  static constexpr int kWords = CodeWords<kBits>{kDim}.words();
  static constexpr int kChunks = (kWords + kChunkWords - 1) / kChunkWords;
  static constexpr int kCodesAt = kPlanes * kDim * 2;
  static constexpr int kBytes = kCodesAt + kChunks * kWarp * 16;
  static constexpr int kChannelsOfChunk = kChunkWords * 32 / kBits;
  static_assert(kDim % kBlockTokens == 0);

  /// Starts the copy of a payload of `dim` channels, by one warp.
  template <class Block>
  KVAST_HD static void copy(const Block& block, const std::byte* payload, int dim, std::byte* to) {
    const FragmentPayload<Format, kPart> from{dim};
    const int lane = block.warp().lane();
    constexpr int kOfPlane = kDim / 8;  // chunks
    const int of_plane = from.groups() / 8;
    for (int first = 0; first < kPlanes * kOfPlane; first += kWarp) {
      const int at = first + lane;
      if (at >= kPlanes * kOfPlane) continue;
      const int chunk = at % kOfPlane;
      const bool valid = chunk < of_plane;
      const int source = valid ? (at / kOfPlane * of_plane + chunk) * 16 : 0;
      block.template copy_async<16>(to + at * 16, payload + source, valid);
    }
    const std::byte* codes = payload + from.codes();
    std::byte* line = to + kCodesAt + lane * 16;
    if (kWords % kChunkWords == 0 && from.words().words() == kWords) {
      for (int chunk = 0; chunk < kChunks; ++chunk)
        block.template copy_async<16>(line + chunk * kWarp * 16,
                                      codes + (chunk * kWarp + lane) * 16);
      return;
    }
    for (int word = 0; word < kChunks * kChunkWords; ++word) {
      const bool valid = word < from.words().words();
      block.template copy_async<4>(line + word / kChunkWords * kWarp * 16 + word % kChunkWords * 4,
                                   codes + (valid ? from.words().word(lane, word) : 0), valid);
    }
  }

  /// Words of a lane.
  KVAST_HD static Chunk chunk(const std::byte* tile, int lane, int at) {
    return *reinterpret_cast<const Chunk*>(tile + kCodesAt + (at * kWarp + lane) * 16);
  }
  /// A lane's part of the two fragments of the `at`-th sixteen channels of a chunk: of the first
  /// and the last sixteen tokens.
  KVAST_HD static void fragments(const Chunk& chunk, int at, std::uint32_t (&to)[2][4]) {
    constexpr int kPairs = CodeWords<kBits>::kPairs;
    for (int pair = 0; pair < 8; ++pair) {
      const std::uint32_t word = chunk.words[at * 8 / kPairs + pair / kPairs];
      to[pair / 4][pair % 4] = CodePairs<Format>::pair(word, pair % kPairs);
    }
  }
  /// Metadata of four groups from `group` on.
  KVAST_HD static FourHalves metadata(const std::byte* tile, int plane, int group) {
    return *reinterpret_cast<const FourHalves*>(tile + (plane * kDim + group) * 2);
  }

  /// The power of two that brings the largest of the tile's scales from 2^(kScalePower - 1) to
  /// 2^kScalePower; less where that would be more than 2^15.
  template <class Warp>
  KVAST_HD static int scale_power(const Warp& warp, const std::byte* tile) {
    constexpr int kBias = 15;
    const int exponent = static_cast<int>(largest_scale(warp, tile, ~0U) >> 10U);
    return least_of(kScalePower - 1 + kBias - exponent, 15);
  }

  /// The power of two that the product of a weight of at most 1 and a live token's scale is
  /// multiplied by, so that it is neither too large for halves nor lost among the smallest. Up to
  /// kMostPower is the weights' part, what is more the scales', which stay below 2. `before`: of
  /// the blocks before, kept while it will do, as sums would have to be multiplied for another one.
  template <class Warp>
  KVAST_HD static int weight_power(const Warp& warp, const std::byte* tile, std::uint32_t live,
                                   int before) {
    if constexpr (kPlanes == 0) return kMostPower;
    // a lane's words are of the same two tokens, whatever their group
    const std::uint32_t both = live >> (warp.lane() * 2 % kBlockTokens);
    const std::uint32_t seen = (both & 1U) * 0xFFFFU | (both >> 1U & 1U) * 0xFFFF0000U;
    int most = most_power(warp, tile, seen);
    // dead tokens' scales are multiplied as well, and infinity times a weight of 0 is no number
    if (most > kMostPower && live != ~0U)
      most = most_of(kMostPower, least_of(most, most_power(warp, tile, ~0U)));
    return before <= most && before + 9 > most ? before : most_of((most + 1) / 5 * 5 - 1, 0);
  }

 private:
  template <class Warp>
  KVAST_HD static int most_power(const Warp& warp, const std::byte* tile, std::uint32_t seen) {
    return most_of(29 - static_cast<int>(largest_scale(warp, tile, seen) >> 10U), 0);
  }
  /// As bits of a half. `seen`: bits of a lane's words that count.
  template <class Warp>
  KVAST_HD static std::uint32_t largest_scale(const Warp& warp, const std::byte* tile,
                                              std::uint32_t seen) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(tile);
    std::uint32_t most = 0;  // of bits 16 to 31: scales are not negative
    for (int first = 0; first < kDim / 2; first += kWarp) {
      if (kDim / 2 % kWarp != 0 && first + warp.lane() >= kDim / 2) continue;
      const std::uint32_t word = words[first + warp.lane()] & seen;  // two scales
      most = most_of(most, most_of(word, word << 16U));
    }
    return warp.largest(most) >> 16U;
  }
};

}  // namespace kvast::gpu
