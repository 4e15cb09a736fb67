// SPDX-License-Identifier: Apache-2.0
// How attention uses a thread block: what its warps read of each kind of block, and the shared
// memory for it.
#pragma once

#include <type_traits>

#include "kvast/gpu/attend_queries.cuh"
#include "kvast/gpu/attend_stream.cuh"
#include "kvast/gpu/code_products.cuh"

namespace kvast::gpu {

/// A cache whose sealed blocks are codes, behind a residual in f16.
template <class KeyFormat, class ValueFormat>
struct Codes {
  using Keys = KeyFormat;
  using Values = ValueFormat;
};

/// Whether attention reads this pair of formats as codes. Each is a kernel that somebody must
/// compile.
template <class Keys, class Values>
KVAST_HD constexpr bool attends_codes() {
  constexpr bool same = std::is_same_v<Keys, Values>;
  constexpr bool finer_keys = (std::is_same_v<Keys, Int<8>> && std::is_same_v<Values, Int<4>>) ||
                              (std::is_same_v<Keys, Int<4>> && std::is_same_v<Values, Int<2>>);
  return kInFragments<Keys> && kInFragments<Values> && (same || finer_keys);
}

/// What is kept in dense blocks alone (a format), or in Codes.
template <class Kept>
struct AttendFormats {
  using Waiting = Kept;
  static constexpr bool kCodes = false;
};
template <class Keys, class Values>
struct AttendFormats<Codes<Keys, Values>> {
  static_assert(attends_codes<Keys, Values>());
  using Waiting = F16;
  static constexpr bool kCodes = true;
};

/// Dense blocks. A ring of `kRing` tiles.
template <class Format, int kDim, int kRows, int kRing>
struct DenseReading {
  using Tile = SharedRows<typename Format::Element, kDim>;
  using Products = std::conditional_t<std::is_same_v<Format, F32>, FmaProducts<kDim>,
                                      MmaProducts<Format, kDim, kRows>>;
  static constexpr int kSlots = kRing;
  static constexpr int kSlotBytes = Tile::kTileBytes;
  static constexpr int kSums = kDim / 4;

  template <class Block>
  KVAST_HD static void copy_keys(const Block& block, const LayerView& layer, const std::byte* keys,
                                 std::byte* to) {
    Tile::copy(block, keys, layer.dense_key_bytes, to);
  }
  template <class Block>
  KVAST_HD static void copy_values(const Block& block, const LayerView& layer,
                                   const std::byte* values, std::byte* to) {
    Tile::copy(block, values, layer.dense_value_bytes, to);
  }
};

/// Coded blocks, in the same memory: as many more tiles as are smaller.
template <class Kept, int kDim, int kRows, int kRingBytes>
struct CodeReading {
  using Products = CodeProducts<typename Kept::Keys, typename Kept::Values, kDim, kRows>;
  using KeyTile = typename Products::KeyTile;
  using ValueTile = typename Products::ValueTile;
  static constexpr int kSlotBytes = most_of(KeyTile::kBytes, ValueTile::kBytes);
  static constexpr int kSlots = least_of(kRingBytes / kSlotBytes, 8);
  static constexpr int kSums = Products::kSums;
  static_assert(kSlots >= 2);

  template <class Block>
  KVAST_HD static void copy_keys(const Block& block, const LayerView& layer, const std::byte* keys,
                                 std::byte* to) {
    KeyTile::copy(block, keys, layer.head_dim, to);
  }
  template <class Block>
  KVAST_HD static void copy_values(const Block& block, const LayerView& layer,
                                   const std::byte* values, std::byte* to) {
    ValueTile::copy(block, values, layer.value_dim, to);
  }
};

/// Memory that lets copies run ahead, and what is left for several blocks to share a processor.
template <class Kept, int kDim, int kRows>
struct AttendShape {
  using Waiting = typename AttendFormats<Kept>::Waiting;
  static constexpr bool kCodes = AttendFormats<Kept>::kCodes;
  using Tile = SharedRows<typename Waiting::Element, kDim>;
  static constexpr int kWarps = Tile::kTileBytes <= 8192 ? 4 : 2;
  /// Tiles of dense keys or values. Behind codes they are few: memory for another thread block is
  /// worth more.
  static constexpr int kRing = Tile::kTileBytes <= 16384 && !kCodes ? 3 : 2;
  static constexpr int kRingBytes = kRing * Tile::kTileBytes;  ///< of a warp

  using Dense = DenseReading<Waiting, kDim, kRows, kRing>;
  /// The dense one where there are no codes.
  using Coded = std::conditional_t<kCodes, CodeReading<Kept, kDim, kRows, kRingBytes>, Dense>;
  using Products = typename Dense::Products;
  using Queries = QueryRows<Waiting, kDim, kRows>;
  static_assert(kRows == Products::kTiles * kTileRows);
  static constexpr int kSums = most_of(Dense::kSums, Coded::kSums);
  static constexpr int kVisits = most_of(visits_of(Dense::kSlots), visits_of(Coded::kSlots));
  static constexpr int kSumStride = kDim + 4;  ///< avoids conflicts of banks

  static constexpr int kScratchAt = kWarps * kRingBytes;
  static constexpr int kVisitsAt = kScratchAt + kWarps * Products::kScratchBytes;
  static constexpr int kStatesAt = kVisitsAt + kWarps * kVisits * static_cast<int>(sizeof(Visit));
  static constexpr int kFactorsAt = kStatesAt + kWarps * kRows * 2 * 4;  ///< of rows of queries
  static constexpr int kQueriesAt = kFactorsAt + (kCodes ? kRows * 4 : 0);
  static_assert(kWarps * kRows * kSumStride * 4 <= kScratchAt);

  static constexpr std::size_t shared_bytes(bool turns) {
    return static_cast<std::size_t>(kQueriesAt + (turns ? kWarps : 1) * Queries::kBytes +
                                    (kCodes ? Queries::kBytes : 0) +
                                    (turns ? Queries::kRawBytes : 0));
  }
};

}  // namespace kvast::gpu
