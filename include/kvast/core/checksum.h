// SPDX-License-Identifier: Apache-2.0
// CRC-32, which tells damaged files.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvast {

/// The one of zlib, PNG and Ethernet: polynomial 0xEDB88320, reflected. Any change within 32 bits
/// in a row changes it.
inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  static constexpr auto kTable = [] {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
      std::uint32_t rest = byte;
      for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1U) ^ ((rest & 1U) != 0 ? 0xEDB88320U : 0U);
      table[byte] = rest;
    }
    return table;
  }();
  std::uint32_t rest = 0xFFFFFFFFU;
  for (const std::byte byte : bytes)
    rest = (rest >> 8U) ^ kTable[(rest ^ static_cast<std::uint32_t>(byte)) & 0xFFU];
  return ~rest;
}

}  // namespace kvast
