// SPDX-License-Identifier: Apache-2.0
// Reads the GGUF model format: metadata and a table of tensors, over a file mapped into memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvast::decoder {

/// A model file that cannot be used; the message is one sentence that says what is wrong with it.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// How the numbers of a tensor are stored; the values are those of the format.
enum class TensorType : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8 };

/// Numbers per block of a type, and the bytes of one block.
struct TypeLayout {
  int block = 1;
  int bytes = 4;
};
TypeLayout layout_of(TensorType type);

/// One tensor of the file. Extents are fastest first, as the format has them: [columns, rows, ...].
struct Tensor {
  TensorType type = TensorType::f32;
  int rank = 1;
  std::array<std::int64_t, 4> extents{1, 1, 1, 1};
  std::span<const std::byte> data;  ///< inside the file's mapping; exactly the tensor's bytes
};

/// The value types of metadata, numbered as in the format.
enum class ValueType : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64
};

/// One metadata value. Scalars are held by value; strings and arrays point into the file.
struct Value {
  ValueType type = ValueType::uint8;
  std::int64_t integer = 0;  ///< integers and booleans
  double real = 0;           ///< floats
  std::string_view text;     ///< strings
  ValueType element = ValueType::uint8;
  std::uint64_t count = 0;           ///< array elements
  std::span<const std::byte> bytes;  ///< array elements as stored
};

/// The parsed view of a file's bytes. Every count, offset and size was checked against the bytes
/// that exist before anything was read, so the views handed out never leave them.
class Gguf {
 public:
  /// Parses `bytes`, which must outlive this object. Throws FileError.
  explicit Gguf(std::span<const std::byte> bytes);

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  /// An integer within [lowest, highest]. Throws FileError if it is absent (unless there is a
  /// `fallback`), of another type, or out of range.
  int integer(std::string_view key, int lowest, int highest,
              std::optional<int> fallback = std::nullopt) const;
  /// A finite float, or `fallback` where the key is absent. Throws FileError.
  double real(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  bool boolean(std::string_view key, bool fallback) const;
  /// A string, valid as long as the file's bytes. Throws FileError if it is absent without
  /// fallback.
  std::string_view text(std::string_view key,
                        std::optional<std::string_view> fallback = std::nullopt) const;
  std::vector<std::string_view> texts(std::string_view key) const;  ///< an array of strings
  std::vector<int> integers(std::string_view key) const;            ///< an array of 32-bit integers

  const Tensor* find(std::string_view name) const;    ///< null where the file has no such tensor
  const Tensor& tensor(std::string_view name) const;  ///< throws FileError naming what is missing
  const std::map<std::string_view, Tensor>& tensors() const { return tensors_; }

 private:
  const Value* value(std::string_view key, bool required) const;

  std::map<std::string_view, Value> values_;
  std::map<std::string_view, Tensor> tensors_;
};

}  // namespace kvast::decoder
