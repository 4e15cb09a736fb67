// SPDX-License-Identifier: Apache-2.0
// The microkernel on codes: rows of numbers, rounded to a digit or two of a byte each, times
// integer codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kvast/format/tile.h"
#include "kvast/host/simd.h"

namespace kvast {

inline constexpr int kMaxDepth = 512;   ///< rows of a tile, or of all tiles that share a left side
inline constexpr int kMaxCodeRows = 8;  ///< of a product with codes: more only take long to compile
inline constexpr int kMaxTiles = kMaxDepth / kBlockTokens;  ///< that share a left side

/// Numbers that are to be added to every column of a tile of a product, each the sum of a vector's
/// lanes: [row][tile][lane]. They are summed up once, when all products with a row are done.
struct Pending {
  float* data = nullptr;  ///< null: added at once
  std::ptrdiff_t stride = 0;

  Pending from(int row) const { return {data == nullptr ? data : data + row * stride, stride}; }
};

namespace detail {

/// Calls body.template operator()<Rows>() with Rows == rows, for rows in [1, Most].
template <int Most, class Body>
void with_rows(int rows, Body&& body) {
  if constexpr (Most > 1) {
    if (rows < Most) return with_rows<Most - 1>(rows, body);
  }
  body.template operator()<Most>();
}

/// What a format's codes mean to a product: codes are around kMiddle, level = code - kOffset.
template <class Format>
struct Meaning {
  static constexpr float kMiddle = Format::kPlanes == 2
                                       ? static_cast<float>((1 << Format::kBits) - 1) / 2.0F
                                       : static_cast<float>(Format::kOffset);
  static constexpr float kShift = kMiddle - static_cast<float>(Format::kOffset);
  /// Number = step * digit, or step * (kBase * digit + second digit). Two digits stay small, so
  /// that two products with codes up to 255 fit into 16 bits.
  static constexpr float kBase = 127.0F;
  static constexpr float kMost = Format::kDigits == 1 ? 127.0F : 8000.0F;
};

/// Rows of the left side as digits, once for each tile, since a tile's scales are part of them.
template <int kRows, int kDigits>
struct DigitRows {
  alignas(64) std::int8_t digits[kRows][kDigits][kMaxDepth + 64];  ///< of a tile after another
  float steps[kRows];
  float biases[kRows];  ///< what the product with the only tile lacks in every column
};

/// Tiles that share a left side.
struct Tiles {
  const std::byte* first;
  int count;
  std::size_t stride;  ///< bytes
  int depth;           ///< rows of each

  const std::byte* at(int index) const { return first + static_cast<std::size_t>(index) * stride; }
};

/// body(integral_constant) for 0 to Count - 1, unrolled.
template <int Count, class Body>
void unrolled(Body&& body) {
  [&]<int... kAt>(std::integer_sequence<int, kAt...>) {
    (body(std::integral_constant<int, kAt>{}), ...);
  }
  (std::make_integer_sequence<int, Count>{});
}

/// Rows times the scales of the tiles' rows as digits, each row with a step of its own. What
/// rounding takes away is given back as if all codes were kMiddle, so that only their spread meets
/// it. kDepth: the tiles' depth, or 0 for one tile of any depth.
template <class Format, class Simd, int Rows, int kDepth, int kRows>
void round_rows(const float* a, std::ptrdiff_t a_stride, const Tiles& tiles, int first_row,
                DigitRows<kRows, Format::kDigits>& out, const Pending& pending) {
  using F = typename Simd::F;
  using M = Meaning<Format>;
  const int depth = kDepth > 0 ? kDepth : tiles.depth;
  const int whole = depth / Simd::kLanes * Simd::kLanes;
  alignas(64) float scaled[Rows][kMaxDepth + 4 * Simd::kLanes];
  F lanes[Rows][kMaxTiles];  // whose sum is a bias
  F most[4];                 // four, as they are reduced together
  unrolled<4>([&](auto row) { most[row] = Simd::zero(); });
  for (int tile = 0; tile < tiles.count; ++tile) {
    const auto* planes = reinterpret_cast<const half*>(tiles.at(tile));
    F bias[Rows];
    unrolled<Rows>([&](auto row) { bias[row] = Simd::zero(); });
    const auto step_through = [&](int at, F scale, F minimum, const auto& number_of) {
      const F middle = Simd::fma(scale, Simd::set1(M::kShift), minimum);
      unrolled<Rows>([&](auto row) {
        const F number = number_of(row);
        const F product = Simd::mul(number, scale);
        Simd::store(scaled[row] + tile * depth + at, product);
        most[row] = Simd::max_magnitude(most[row], product);
        if constexpr (Format::kPlanes == 2) bias[row] = Simd::fma(number, middle, bias[row]);
      });
    };
    for (int at = 0; at < whole; at += Simd::kLanes) {
      F minimum = Simd::zero();
      if constexpr (Format::kPlanes == 2) minimum = Simd::load_half(planes + depth + at);
      step_through(at, Simd::load_half(planes + at), minimum,
                   [&](int row) { return Simd::load(a + row * a_stride + at); });
    }
    if (whole < depth) {  // a part of a vector, behind which lie other things
      alignas(64) half last[2][Simd::kLanes] = {};
      alignas(64) float numbers[Rows][Simd::kLanes] = {};
      std::copy_n(planes + whole, depth - whole, last[0]);
      if constexpr (Format::kPlanes == 2)
        std::copy_n(planes + depth + whole, depth - whole, last[1]);
      for (int row = 0; row < Rows; ++row)
        std::copy_n(a + row * a_stride + whole, depth - whole, numbers[row]);
      step_through(whole, Simd::load_half(last[0]), Simd::load_half(last[1]),
                   [&](int row) { return Simd::load(numbers[row]); });
    }
    unrolled<Rows>([&](auto row) { lanes[row][tile] = bias[row]; });
  }
  // in chunks of four vectors, the last one filled up
  constexpr int kChunk = 4 * Simd::kLanes;
  const int total = tiles.count * depth;
  if (total % kChunk != 0) {
    for (int row = 0; row < Rows; ++row)
      std::fill_n(scaled[row] + total, kChunk - total % kChunk, 0.0F);
  }
  alignas(16) float largest[4];
  Simd::reduce_max(most, largest);
  F last_lanes[4];
  unrolled<4>([&](auto row) { last_lanes[row] = Simd::zero(); });
  unrolled<Rows>([&](auto row) {
    const float step = std::max(largest[row], 1e-30F) / M::kMost;
    const F inverse = Simd::set1(M::kMost / std::max(largest[row], 1e-30F));
    const F give_back = Simd::set1(-step * M::kMiddle);
    out.steps[first_row + row] = step;
    std::int8_t* digits = out.digits[first_row + row][0];
    std::int8_t* second = out.digits[first_row + row][Format::kDigits - 1];
    for (int at = 0; at < total; at += kChunk) {
      typename Simd::I whole_numbers[4];
      [[maybe_unused]] typename Simd::I low_numbers[4];  // of formats with two digits
      for (int part = 0; part < 4; ++part) {
        const int here = at + part * Simd::kLanes;
        const F number = Simd::mul(Simd::load(scaled[row] + here), inverse);
        F rounded;
        if constexpr (Format::kDigits == 1) {
          whole_numbers[part] = Simd::to_int(number);
          rounded = Simd::to_float(whole_numbers[part]);
        } else {
          const F high = Simd::round(Simd::mul(number, Simd::set1(1.0F / M::kBase)));
          whole_numbers[part] = Simd::to_int(high);
          low_numbers[part] = Simd::to_int(Simd::fma(high, Simd::set1(-M::kBase), number));
          rounded = Simd::fma(high, Simd::set1(M::kBase), Simd::to_float(low_numbers[part]));
        }
        if (here < total) {  // always, but in the last chunk
          int tile = 0;
          if constexpr (kDepth > 0) tile = here / kDepth;
          F& bias = lanes[row][tile];
          bias = Simd::fma(give_back, rounded, bias);
        }
      }
      Simd::store_int8(digits + at, whole_numbers);
      if constexpr (Format::kDigits == 2) Simd::store_int8(second + at, low_numbers);
    }
    for (int tile = 0; pending.data != nullptr && tile < tiles.count; ++tile) {
      float* to = pending.data + (first_row + row) * pending.stride + tile * Simd::kLanes;
      Simd::store(to, Simd::add(Simd::load(to), lanes[row][tile]));
    }
    last_lanes[row] = lanes[row][0];
  });
  if (pending.data != nullptr) return;
  alignas(16) float sums[4];
  Simd::reduce_add(last_lanes, sums);
  unrolled<Rows>([&](auto row) { out.biases[first_row + row] = sums[row]; });
}

/// Four rows at a time.
template <class Format, class Simd, int Rows, int kRows>
void round_all(const float* a, std::ptrdiff_t a_stride, const Tiles& tiles,
               DigitRows<kRows, Format::kDigits>& out, const Pending& pending) {
  unrolled<(Rows + 3) / 4>([&](auto four) {
    constexpr int kFirst = 4 * four;
    constexpr int kHere = Rows - kFirst < 4 ? Rows - kFirst : 4;
    const float* rows = a + kFirst * a_stride;
    if (tiles.depth == kBlockTokens) {
      round_rows<Format, Simd, kHere, kBlockTokens>(rows, a_stride, tiles, kFirst, out, pending);
    } else {
      round_rows<Format, Simd, kHere, 0>(rows, a_stride, tiles, kFirst, out, pending);
    }
  });
}

/// The codes (or what stands in for them) of four rows for Simd::kLanes columns from `column` on.
template <class Format, class Simd>
typename Simd::W unpack(const std::uint8_t* unit, int quad, int column) {
  constexpr int kField = Format::kBits == 3 ? 2 : Format::kBits;
  constexpr int kFields = 8 / kField;
  const int vector = 2 * quad + column / 16;
  const int lane = column % 16 * 4;
  typename Simd::W codes = Simd::template field<kField>(
      Simd::load_bytes(unit + vector / kFields * 64 + lane), vector % kFields);
  if constexpr (Format::kBits == 3)
    codes = Simd::add_fours(codes, unit + unit_bytes<2>() + 8 * vector + lane / 8);
  if constexpr (Format::kHasLevels) codes = Simd::lookup(Format::kLevels, codes);
  return codes;
}

/// c[row][0..32) += rows x codes; accumulators stay in registers.
template <class Format, class Simd, int Rows, int kRows>
void multiply_units(const DigitRows<kRows, Format::kDigits>& a, const Tiles& tiles, int index,
                    bool adds_bias, float* c, std::ptrdiff_t c_stride, const std::byte* ahead) {
  using F = typename Simd::F;
  constexpr int kDigits = Format::kDigits;
  constexpr int kVectors = Simd::vectors(Rows * kDigits);
  constexpr std::size_t kUnit = unit_bytes<Format::kBits>();
  constexpr std::size_t kAhead = kUnit + tile_codes<Format>(kUnitRows);
  const int depth = tiles.depth;
  const auto* units =
      reinterpret_cast<const std::uint8_t*>(tiles.at(index) + tile_codes<Format>(depth));
  for (int first = 0; first < kBlockTokens; first += kVectors * Simd::kLanes) {
    typename Simd::I sum[Rows][kDigits][kVectors];
    for (auto& row : sum) {
      for (auto& digit : row) {
        for (auto& one : digit) one = Simd::no_sum();
      }
    }
    const std::uint8_t* unit = units;
    const std::byte* next = ahead;
    for (int step = 0; step < depth; step += kUnitRows, unit += kUnit, next += kAhead) {
      if (first == 0) {
        for (std::size_t line = 0; line < kAhead; line += 64) __builtin_prefetch(next + line);
      }
      for (int quad = 0; quad < kUnitRows / 4; ++quad) {
        typename Simd::W codes[kVectors];
        for (int at = 0; at < kVectors; ++at)
          codes[at] = unpack<Format, Simd>(unit, quad, first + at * Simd::kLanes);
        for (int row = 0; row < Rows; ++row) {
          for (int digit = 0; digit < kDigits; ++digit) {
            const auto four = Simd::four(a.digits[row][digit] + index * depth + step + 4 * quad);
            for (int at = 0; at < kVectors; ++at)
              sum[row][digit][at] = Simd::dot(sum[row][digit][at], codes[at], four);
          }
        }
      }
    }
    for (int row = 0; row < Rows; ++row) {
      const F step = Simd::set1(a.steps[row]);
      const F bias = Simd::set1(adds_bias ? a.biases[row] : 0.0F);
      for (int at = 0; at < kVectors; ++at) {
        F all = Simd::to_float(sum[row][0][at]);
        if constexpr (kDigits == 2)
          all = Simd::fma(all, Simd::set1(Meaning<Format>::kBase), Simd::to_float(sum[row][1][at]));
        float* to = c + row * c_stride + first + at * Simd::kLanes;
        Simd::store(to, Simd::fma(step, all, Simd::add(bias, Simd::load(to))));
      }
    }
  }
}

}  // namespace detail

/// c[row][32 t..32 t + 32) += a[row][0..depth) x tile t, for `count` tiles; one, where nothing can
/// be pending. The affine part never enters the inner loop: a row is multiplied by the scales of
/// the tile's groups first, and sum(a * minimum) is one number per row.
template <class Format, class Simd>
void multiply_codes(const float* a, std::ptrdiff_t a_stride, int rows, int depth,
                    const std::byte* first_tile, int count, float* c, std::ptrdiff_t c_stride,
                    const std::byte* ahead, const Pending& pending) {
  const detail::Tiles tiles{first_tile, count, tile_bytes<Format>(depth, kBlockTokens), depth};
  constexpr int kMost = Simd::kMaxRows < kMaxCodeRows ? Simd::kMaxRows : kMaxCodeRows;
  detail::DigitRows<kMost, Format::kDigits> digits;
  for (int first = 0; first < rows; first += kMost) {
    const Pending here = pending.from(first);
    detail::with_rows<kMost>(std::min(kMost, rows - first), [&]<int Rows>() {
      detail::round_all<Format, Simd, Rows>(a + first * a_stride, a_stride, tiles, digits, here);
      for (int index = 0; index < count; ++index) {
        detail::multiply_units<Format, Simd, Rows>(
            digits, tiles, index, here.data == nullptr, c + first * c_stride + index * kBlockTokens,
            c_stride,
            first == 0 ? ahead + static_cast<std::size_t>(index) * tiles.stride : first_tile);
      }
    });
  }
}

}  // namespace kvast
