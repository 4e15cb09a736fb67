// SPDX-License-Identifier: Apache-2.0
// A calibration as bytes and as a file: versioned, checksummed, and naming the model's shape.
//
//   "kvastcal", version u32, before_rope u32, tokens u64, layers u32
//   per layer   query_heads, heads, head_dim, value_dim u32; key bases u32; value bases u32
//               of keys, then of values: energies f64 [bases, dim], vectors f32 [bases, dim, dim]
//   CRC-32 of all before it
//
// All little-endian.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "kvast/calibrate/calibration.h"
#include "kvast/core/checksum.h"
#include "kvast/core/status.h"

namespace kvast {

namespace detail {

inline constexpr char kCalibrationMagic[] = "kvastcal";
inline constexpr std::uint32_t kCalibrationVersion = 1;

class ByteWriter {
 public:
  template <class Whole>
  void whole(Whole number) {
    for (std::size_t byte = 0; byte < sizeof(Whole); ++byte)
      bytes_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(number) >> (8 * byte)));
  }
  void count(int number) { whole(static_cast<std::uint32_t>(number)); }
  void text(const char* letters) {
    for (; *letters != '\0'; ++letters) bytes_.push_back(static_cast<std::byte>(*letters));
  }
  void directions(const Directions& all) {
    for (const double energy : all.energies) whole(std::bit_cast<std::uint64_t>(energy));
    for (const float number : all.vectors) whole(std::bit_cast<std::uint32_t>(number));
  }
  std::vector<std::byte> take() {
    whole(crc32(bytes_));
    return std::move(bytes_);
  }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote. Past the end everything is 0 and `good` is false.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <class Whole>
  Whole whole() {
    std::uint64_t number = 0;
    if (left_.size() < sizeof(Whole)) {
      good_ = false;
      return 0;
    }
    for (std::size_t byte = 0; byte < sizeof(Whole); ++byte)
      number |= static_cast<std::uint64_t>(left_[byte]) << (8 * byte);
    left_ = left_.subspan(sizeof(Whole));
    return static_cast<Whole>(number);
  }
  /// A count in [least, most].
  int count(std::uint32_t least, std::uint32_t most) {
    const auto number = whole<std::uint32_t>();
    good_ = good_ && number >= least && number <= most;
    return good_ ? static_cast<int>(number) : 0;
  }
  Directions directions(int bases, int dim) {
    Directions all{.heads = bases, .dim = dim, .energies = {}, .vectors = {}};
    const auto rows = static_cast<std::size_t>(bases) * static_cast<std::size_t>(dim);
    const std::size_t numbers = rows * static_cast<std::size_t>(dim);
    good_ = good_ && left_.size() >= rows * sizeof(double) + numbers * sizeof(float);
    if (!good_) return all;
    for (std::size_t at = 0; at < rows; ++at) {
      all.energies.push_back(std::bit_cast<double>(whole<std::uint64_t>()));
      good_ = good_ && std::isfinite(all.energies.back()) && all.energies.back() >= 0.0;
    }
    for (std::size_t at = 0; at < numbers; ++at)
      all.vectors.push_back(std::bit_cast<float>(whole<std::uint32_t>()));
    for (std::size_t row = 0; row < rows; ++row) good_ = good_ && all.has_unit_length(row);
    return all;
  }
  bool good() const { return good_; }
  bool at_end() const { return left_.empty(); }

 private:
  std::span<const std::byte> left_;
  bool good_ = true;
};

}  // namespace detail

inline std::vector<std::byte> calibration_bytes(const Calibration& calibration) {
  detail::ByteWriter out;
  out.text(detail::kCalibrationMagic);
  out.whole(detail::kCalibrationVersion);
  out.count(calibration.before_rope ? 1 : 0);
  out.whole(static_cast<std::uint64_t>(calibration.tokens));
  out.count(static_cast<int>(calibration.layers.size()));
  for (std::size_t index = 0; index < calibration.layers.size(); ++index) {
    const Shape& shape = calibration.shapes[index];
    const LayerDirections& layer = calibration.layers[index];
    for (const int number : {shape.query_heads, shape.heads, shape.head_dim, shape.values(),
                             layer.keys.heads, layer.values.heads})
      out.count(number);
    out.directions(layer.keys);
    out.directions(layer.values);
  }
  return out.take();
}

/// A Status of `damaged` where the bytes are not what calibration_bytes made, of `unreadable` where
/// a later version did.
inline Result<Calibration> read_calibration(std::span<const std::byte> bytes) {
  const auto refuse = [](StatusCode code, const std::string& why) {
    return Status(code, "calibration: " + why);
  };
  constexpr std::size_t kMagic = sizeof(detail::kCalibrationMagic) - 1;
  constexpr std::size_t kEnd = sizeof(std::uint32_t);
  if (bytes.size() < kMagic + kEnd ||
      std::memcmp(bytes.data(), detail::kCalibrationMagic, kMagic) != 0)
    return refuse(StatusCode::damaged, "it does not begin as a calibration does");
  const std::span<const std::byte> summed = bytes.first(bytes.size() - kEnd);
  if (detail::ByteReader(bytes.last(kEnd)).whole<std::uint32_t>() != crc32(summed))
    return refuse(StatusCode::damaged, "its checksum is wrong; fetch or fit it again");
  detail::ByteReader in(summed.subspan(kMagic));
  const auto version = in.whole<std::uint32_t>();
  if (version != detail::kCalibrationVersion)
    return refuse(StatusCode::unreadable,
                  detail::join_text("it has version ", version, ", this library reads ",
                                    detail::kCalibrationVersion));
  Calibration read;
  read.before_rope = in.count(0, 1) == 1;
  const auto tokens = in.whole<std::uint64_t>();
  if (tokens >> 63U != 0) return refuse(StatusCode::damaged, "its count of tokens cannot be");
  read.tokens = static_cast<std::int64_t>(tokens);
  const int layers = in.count(1, 4096);
  for (int index = 0; index < layers && in.good(); ++index) {
    Shape shape;
    shape.query_heads = in.count(1, 4096);
    shape.heads = in.count(1, 4096);
    shape.head_dim = in.count(8, 512);
    shape.value_dim = in.count(8, 512);
    const int key_bases = in.count(1, 4096);
    const int value_bases = in.count(1, 4096);
    LayerDirections layer;
    layer.keys = in.directions(key_bases, shape.head_dim);
    layer.values = in.directions(value_bases, shape.value_dim);
    const auto fits = [&](int bases) { return bases == 1 || bases == shape.heads; };
    if (!in.good() || !fits(key_bases) || !fits(value_bases) || shape.head_dim % 8 != 0 ||
        shape.value_dim % 8 != 0 || shape.query_heads % shape.heads != 0)
      return refuse(StatusCode::damaged,
                    detail::join_text("layer ", index, " is not what a model's can be"));
    read.shapes.push_back(shape);
    read.layers.push_back(std::move(layer));
  }
  if (!in.good() || !in.at_end())
    return refuse(StatusCode::damaged, "its length is not what its counts say");
  return read;
}

/// The same for a model of this shape; of another: a Status of `mismatch` with both.
inline Result<Calibration> read_calibration(std::span<const std::byte> bytes,
                                            const ShapeList& model) {
  Result<Calibration> read = read_calibration(bytes);
  if (!read) return read;
  const std::string mismatch = calibration_mismatch(*read, model);
  if (!mismatch.empty()) return Status(StatusCode::mismatch, "calibration: " + mismatch);
  return read;
}

namespace detail {

/// All bytes of a file; false where it cannot be read, as a directory cannot.
inline bool read_file(const std::string& file, std::string& text) {
  std::ifstream in(file, std::ios::binary);
  char part[1 << 14];
  while (in.read(part, sizeof(part)) || in.gcount() > 0)
    text.append(part, static_cast<std::size_t>(in.gcount()));
  return in.eof() && !in.bad();
}

}  // namespace detail

/// Replaces `file` at once, or leaves it as it was: a Status of `unreadable` where it cannot be
/// written.
inline Status save_calibration(const Calibration& calibration, const std::string& file) {
  const std::vector<std::byte> bytes = calibration_bytes(calibration);
  // what is no file (a pipe, say) cannot be replaced
  std::error_code error;
  const bool replaces =
      !std::filesystem::exists(file, error) || std::filesystem::is_regular_file(file, error);
  const std::string written = replaces ? file + ".part" : file;
  std::ofstream out(written, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
  out.close();
  bool good = out.good();
  if (good && replaces) {
    std::filesystem::rename(written, file, error);
    good = !error;
  }
  if (!good && replaces) std::filesystem::remove(written, error);
  if (!good) return {StatusCode::unreadable, "calibration: cannot write '" + file + "'"};
  return {};
}

inline Result<Calibration> load_calibration(const std::string& file) {
  std::string text;
  if (!detail::read_file(file, text))
    return Status(StatusCode::unreadable, "calibration: cannot read '" + file + "'");
  Result<Calibration> read = read_calibration(std::as_bytes(std::span(text)));
  if (!read) return Status(read.status().code(), "'" + file + "': " + read.status().message());
  return read;
}

}  // namespace kvast
