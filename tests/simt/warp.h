// SPDX-License-Identifier: Apache-2.0
// The warp of gpu/warp.cuh on fibers. What each operation guarantees stands there.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <numeric>

#include "kvast/core/half.h"
#include "kvast/gpu/warp.cuh"
#include "tests/simt/fibers.h"
#include "tests/simt/tensor_core.h"

namespace kvast::test {

/// What a warp's lanes show each other. Two turns, since a quick lane may be one operation ahead of
/// a slow one.
struct WarpMail {
  static constexpr std::size_t kBytes = 32;
  Meeting meeting;
  alignas(16) std::byte letters[2][gpu::kWarp][kBytes];
};

class FiberWarp {
 public:
  FiberWarp(Fibers& fibers, WarpMail& mail, int thread)
      : fibers_(fibers), mail_(mail), thread_(thread) {}

  int lane() const { return thread_ % gpu::kWarp; }
  void sync(Caller site = Caller::here()) const {
    fibers_.meet(thread_, mail_.meeting, "sync of a warp", site);
  }
  template <class Value>
  Value shuffle(Value value, int source, Caller site = Caller::here()) const {
    if (source < 0 || source >= gpu::kWarp)
      throw SimtError(kvast::detail::join_text("shuffle: lane ", source, " at ",
                                               std::string_view(site.file), ":", site.line));
    return exchange("shuffle", value, site)[static_cast<std::size_t>(source)];
  }
  template <class Value>
  Value shuffle_xor(Value value, int mask, Caller site = Caller::here()) const {
    return exchange("shuffle_xor", value, site)[static_cast<std::size_t>((lane() ^ mask) % 32)];
  }
  template <class Value>
  Value shuffle_up(Value value, int distance, Caller site = Caller::here()) const {
    const auto all = exchange("shuffle_up", value, site);
    return lane() < distance ? value : all[static_cast<std::size_t>(lane() - distance)];
  }
  std::uint32_t ballot(bool condition, Caller site = Caller::here()) const {
    const auto all = exchange("ballot", condition ? 1 : 0, site);
    std::uint32_t bits = 0;
    for (int lane = 0; lane < gpu::kWarp; ++lane)
      bits |= static_cast<std::uint32_t>(all[static_cast<std::size_t>(lane)]) << lane;
    return bits;
  }

  unsigned largest(unsigned value, Caller site = Caller::here()) const {
    const auto all = exchange("largest", value, site);
    return *std::max_element(all.begin(), all.end());
  }

  void load_matrices(std::uint32_t (&to)[4], const void* row, Caller site = Caller::here()) const {
    const auto rows = exchange("load_matrices", aligned(row), site);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const std::uint16_t* at = rows[static_cast<std::size_t>(matrix * 8 + lane() / 4)];
      to[matrix] = pair(at[2 * (lane() % 4)], at[2 * (lane() % 4) + 1]);
    }
  }
  void load_matrices_turned(std::uint32_t (&to)[4], const void* row,
                            Caller site = Caller::here()) const {
    const auto rows = exchange("load_matrices_turned", aligned(row), site);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto first = static_cast<std::size_t>(matrix * 8 + 2 * (lane() % 4));
      to[matrix] = pair(rows[first][lane() / 4], rows[first + 1][lane() / 4]);
    }
  }

  void multiply_f16(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                    std::uint32_t b1, Caller site = Caller::here()) const {
    const auto number = [](std::uint32_t bits) {
      return static_cast<double>(to_float(half{static_cast<std::uint16_t>(bits)}));
    };
    multiply<2>("multiply_f16", sum, a, b0, b1, site, number, rounded<-14>);
  }
  void multiply_bf16(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                     std::uint32_t b1, Caller site = Caller::here()) const {
    const auto number = [](std::uint32_t bits) {
      return static_cast<double>(std::bit_cast<float>(bits << 16U));
    };
    multiply<2>("multiply_bf16", sum, a, b0, b1, site, number, rounded<-126>);
  }
  void multiply_s8(std::int32_t (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                   std::uint32_t b1, Caller site = Caller::here()) const {
    const auto number = [](std::uint32_t bits) {
      return static_cast<int>(static_cast<std::int8_t>(bits));
    };
    multiply<4>("multiply_s8", sum, a, b0, b1, site, number, exact);
  }

 private:
  struct Registers {
    std::uint32_t a[4];
    std::uint32_t b[2];
  };

  static std::uint32_t pair(std::uint16_t first, std::uint16_t second) {
    return first | static_cast<std::uint32_t>(second) << 16U;
  }
  static const std::uint16_t* aligned(const void* row) {
    if (std::bit_cast<std::uintptr_t>(row) % 16 != 0)
      throw SimtError("load_matrices: a row is not aligned to 16 bytes");
    return static_cast<const std::uint16_t*>(row);
  }

  /// Every lane's value.
  template <class Value>
  std::array<Value, gpu::kWarp> exchange(const char* what, const Value& value, Caller site) const {
    static_assert(sizeof(Value) <= WarpMail::kBytes);
    auto& letters = mail_.letters[mail_.meeting.round % 2];
    std::memcpy(letters[lane()], &value, sizeof value);
    fibers_.meet(thread_, mail_.meeting, what, site);
    std::array<Value, gpu::kWarp> all;
    for (std::size_t lane = 0; lane < gpu::kWarp; ++lane)
      std::memcpy(&all[lane], letters[lane], sizeof value);
    return all;
  }

  /// A sum and the inner product of 16 halves, or 32 bytes.
  template <int kLeastExponent>
  static float rounded(float sum, const double (&left)[16], const double (&right)[16]) {
    return TensorCore::add(sum, left, right, kLeastExponent);
  }
  static std::int32_t exact(std::int32_t sum, const int (&left)[32], const int (&right)[32]) {
    return std::inner_product(left, left + 32, right, sum);
  }

  // kPack numbers to a register: a is [16, 8 * kPack], b [8 * kPack, 8].
  template <int kPack, class Sum, class Number, class Add>
  void multiply(const char* what, Sum (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                std::uint32_t b1, Caller site, const Number& number, const Add& add) const {
    constexpr int kDepth = 8 * kPack;
    const auto all = exchange(what, Registers{{a[0], a[1], a[2], a[3]}, {b0, b1}}, site);
    const auto part = [&](std::uint32_t word, int at) {
      return number(word >> (32 / kPack * at) & (kPack == 2 ? 0xFFFFU : 0xFFU));
    };
    for (int at = 0; at < 4; ++at) {
      const int row = lane() / 4;
      const int column = 2 * (lane() % 4) + at % 2;
      decltype(number(0U)) left[kDepth];
      decltype(number(0U)) right[kDepth];
      for (int depth = 0; depth < kDepth; ++depth) {
        const int half_of_depth = depth / (4 * kPack);
        const int owner = depth / kPack % 4;
        left[depth] =
            part(all[static_cast<std::size_t>(4 * row + owner)].a[2 * half_of_depth + at / 2],
                 depth % kPack);
        right[depth] =
            part(all[static_cast<std::size_t>(4 * column + owner)].b[half_of_depth], depth % kPack);
      }
      sum[at] = add(sum[at], left, right);
    }
  }

  Fibers& fibers_;
  WarpMail& mail_;
  int thread_;
};

}  // namespace kvast::test
