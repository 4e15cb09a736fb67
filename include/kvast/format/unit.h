// SPDX-License-Identifier: Apache-2.0
// How integer codes are packed: eight rows of a tile together, four rows of a column side by side,
// so that a dot product of bytes takes them after one shift and one mask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kvast/core/host_device.h"
#include "kvast/core/shape.h"

namespace kvast {

inline constexpr int kUnitRows = 8;

/// Bytes of eight rows of codes of `Bits` bits. Always 32 columns: a narrower tile, the last one of
/// values whose dimension is no multiple of 32, pays for the rest.
template <int Bits>
KVAST_HD constexpr std::size_t unit_bytes() {
  return static_cast<std::size_t>(kBlockTokens * Bits);
}

namespace detail {

/// Where a code lies. A unit is four vectors of 64 codes: vector 2 * (row / 4) + column / 16, lane
/// 4 * (column % 16) + row % 4. Codes of `Bits` bits (2, 4 or 8) of 8 / Bits vectors after each
/// other fill each byte from below.
template <int Bits>
struct Fields {
  static constexpr int kFields = 8 / Bits;
  static constexpr int kChunk = 64;  ///< bytes
  static constexpr unsigned kMask = (1U << Bits) - 1U;

  KVAST_HD static int vector(int row, int column) { return row / 4 * 2 + column / 16; }
  KVAST_HD static int lane(int row, int column) { return 4 * (column % 16) + row % 4; }
  KVAST_HD static int byte(int row, int column) {
    return vector(row, column) / kFields * kChunk + lane(row, column);
  }
  KVAST_HD static int shift(int row, int column) { return vector(row, column) % kFields * Bits; }
  KVAST_HD static unsigned get(const std::uint8_t* unit, int row, int column) {
    return static_cast<unsigned>(unit[byte(row, column)]) >> shift(row, column) & kMask;
  }
  KVAST_HD static void set(std::uint8_t* unit, int row, int column, unsigned code) {
    std::uint8_t& at = unit[byte(row, column)];
    at = static_cast<std::uint8_t>((at & ~(kMask << shift(row, column))) |
                                   (code & kMask) << shift(row, column));
  }
};

/// Single bits behind a unit of two: bit `lane` of the 64-bit word `vector`.
struct Bits {
  KVAST_HD static int byte(int row, int column) {
    return 8 * Fields<2>::vector(row, column) + Fields<2>::lane(row, column) / 8;
  }
  KVAST_HD static int shift(int row, int column) { return Fields<2>::lane(row, column) % 8; }
};

}  // namespace detail

/// Single codes of a unit. Three bits are two and, behind them, one.
template <int Bits>
KVAST_HD unsigned unit_get(const std::byte* unit, int row, int column) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(unit);
  if constexpr (Bits == 3) {
    const std::uint8_t* top = bytes + unit_bytes<2>() + detail::Bits::byte(row, column);
    const unsigned bit = static_cast<unsigned>(*top) >> detail::Bits::shift(row, column) & 1U;
    return detail::Fields<2>::get(bytes, row, column) | bit << 2U;
  } else {
    return detail::Fields<Bits>::get(bytes, row, column);
  }
}
template <int Bits>
KVAST_HD void unit_set(std::byte* unit, int row, int column, unsigned code) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(unit);
  if constexpr (Bits == 3) {
    detail::Fields<2>::set(bytes, row, column, code);
    std::uint8_t* top = bytes + unit_bytes<2>() + detail::Bits::byte(row, column);
    const unsigned bit = 1U << detail::Bits::shift(row, column);
    *top = static_cast<std::uint8_t>((code & 4U) != 0 ? *top | bit : *top & ~bit);
  } else {
    detail::Fields<Bits>::set(bytes, row, column, code);
  }
}

namespace detail {

/// Codes of eight rows in the order of a unit's lanes.
inline void order_lanes(const std::uint8_t (*codes)[kBlockTokens],
                        std::uint8_t (*vectors)[Fields<8>::kChunk]) {
  for (int vector = 0; vector < 4; ++vector) {
    const std::uint8_t(*rows)[kBlockTokens] = codes + vector / 2 * 4;
    const int first = vector % 2 * 16;
    for (int column = 0; column < 16; ++column) {
      for (int row = 0; row < 4; ++row)
        vectors[vector][4 * column + row] = rows[row][first + column];
    }
  }
}

/// The low `Bits` bits of each code, as fields.
template <int Bits>
void pack_fields(const std::uint8_t (*vectors)[Fields<8>::kChunk], std::uint8_t* unit) {
  using Field = Fields<Bits>;
  for (int first = 0; first < 4; first += Field::kFields, unit += Field::kChunk) {
    for (int lane = 0; lane < Field::kChunk; ++lane) {
      unsigned byte = 0;
      for (int field = 0; field < Field::kFields; ++field)
        byte |= (vectors[first + field][lane] & Field::kMask) << field * Bits;
      unit[lane] = static_cast<std::uint8_t>(byte);
    }
  }
}

}  // namespace detail

/// codes[row][0..32) of eight rows -> unit. By vectors of lanes: code by code takes longer than all
/// else that sealing does.
template <int Bits>
void unit_pack(const std::uint8_t (*codes)[kBlockTokens], std::byte* unit) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(unit);
  std::uint8_t vectors[4][detail::Fields<8>::kChunk];
  detail::order_lanes(codes, vectors);
  if constexpr (Bits == 3) {
    detail::pack_fields<2>(vectors, bytes);
    std::uint8_t* top = bytes + unit_bytes<2>();
    for (int at = 0; at < kUnitRows * kBlockTokens / 8; ++at) {
      const std::uint8_t* eight = vectors[at / 8] + at % 8 * 8;
      unsigned byte = 0;
      for (int bit = 0; bit < 8; ++bit) byte |= (eight[bit] >> 2U & 1U) << bit;
      top[at] = static_cast<std::uint8_t>(byte);
    }
  } else {
    detail::pack_fields<Bits>(vectors, bytes);
  }
}

/// One byte of what unit_pack writes: on a device each thread makes its own.
template <int Bits>
KVAST_HD std::uint8_t unit_byte(const std::uint8_t (*codes)[kBlockTokens], int byte) {
  // 0..3 of the four vectors, 0..63 of their lanes (see Fields)
  const auto code = [&](int vector, int lane) {
    return static_cast<unsigned>(codes[vector / 2 * 4 + lane % 4][vector % 2 * 16 + lane / 4]);
  };
  constexpr int kFieldBits = Bits == 3 ? 2 : Bits;
  using Field = detail::Fields<kFieldBits>;
  unsigned packed = 0;
  if (byte < static_cast<int>(unit_bytes<kFieldBits>())) {
    for (int field = 0; field < Field::kFields; ++field) {
      const unsigned one =
          code(byte / Field::kChunk * Field::kFields + field, byte % Field::kChunk);
      packed |= (one & Field::kMask) << field * kFieldBits;
    }
  } else {  // the third bits
    const int eight = byte - static_cast<int>(unit_bytes<kFieldBits>());
    for (int bit = 0; bit < 8; ++bit)
      packed |= (code(eight / 8, eight % 8 * 8 + bit) >> 2U & 1U) << bit;
  }
  return static_cast<std::uint8_t>(packed);
}

}  // namespace kvast
