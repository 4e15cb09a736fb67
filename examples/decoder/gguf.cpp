// SPDX-License-Identifier: Apache-2.0
// The GGUF reader: a cursor that refuses to leave the bytes, and the checks of everything it reads.
#include "examples/decoder/gguf.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace kvast::decoder {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF", little endian
constexpr std::uint64_t kMostAlignment = 1U << 20U;
constexpr std::int64_t kMostExtent = std::numeric_limits<std::int32_t>::max();

std::string quoted(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string out = "'";
  for (const char letter : text.substr(0, kMost)) {
    const bool plain = letter >= ' ' && letter <= '~';
    out += plain ? letter : '?';  // names of a damaged file must not reach a terminal as they are
  }
  return out + (text.size() > kMost ? "...'" : "'");
}

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t remaining() const { return bytes_.size() - position_; }
  std::uint64_t position() const { return position_; }

  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > remaining()) {
      throw FileError("the file ends inside " + std::string(what) + " (needs " +
                      std::to_string(count) + " bytes at offset " + std::to_string(position_) +
                      ", has " + std::to_string(remaining()) + ")");
    }
    const auto taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <class Number>
  Number number(std::string_view what) {
    static_assert(std::is_arithmetic_v<Number>);
    Number out{};
    std::memcpy(&out, take(sizeof(Number), what).data(), sizeof(Number));
    return out;
  }

  std::string_view string(std::string_view what) {
    const auto bytes = take(number<std::uint64_t>(what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  std::uint64_t position_ = 0;
};

int scalar_bytes(ValueType type) {
  switch (type) {
    case ValueType::uint8:
    case ValueType::int8:
    case ValueType::boolean:
      return 1;
    case ValueType::uint16:
    case ValueType::int16:
      return 2;
    case ValueType::uint32:
    case ValueType::int32:
    case ValueType::float32:
      return 4;
    case ValueType::uint64:
    case ValueType::int64:
    case ValueType::float64:
      return 8;
    default:
      return 0;
  }
}

ValueType value_type(Cursor& cursor, const std::string& what) {
  const auto type = cursor.number<std::uint32_t>(what);
  if (type > static_cast<std::uint32_t>(ValueType::float64)) {
    throw FileError(what + " has the unknown value type " + std::to_string(type));
  }
  return static_cast<ValueType>(type);
}

std::int64_t to_signed(std::uint64_t number) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return static_cast<std::int64_t>(number < kMost ? number : kMost);
}

void read_scalar(Cursor& cursor, Value& value, const std::string& what) {
  switch (value.type) {
    case ValueType::uint8:
      value.integer = cursor.number<std::uint8_t>(what);
      break;
    case ValueType::int8:
      value.integer = cursor.number<std::int8_t>(what);
      break;
    case ValueType::boolean: {
      value.integer = cursor.number<std::uint8_t>(what);
      if (value.integer > 1) throw FileError(what + " is a boolean that is neither 0 nor 1");
      break;
    }
    case ValueType::uint16:
      value.integer = cursor.number<std::uint16_t>(what);
      break;
    case ValueType::int16:
      value.integer = cursor.number<std::int16_t>(what);
      break;
    case ValueType::uint32:
      value.integer = cursor.number<std::uint32_t>(what);
      break;
    case ValueType::int32:
      value.integer = cursor.number<std::int32_t>(what);
      break;
    case ValueType::uint64:
      value.integer = to_signed(cursor.number<std::uint64_t>(what));
      break;
    case ValueType::int64:
      value.integer = cursor.number<std::int64_t>(what);
      break;
    case ValueType::float32:
      value.real = static_cast<double>(cursor.number<float>(what));
      break;
    default:
      value.real = cursor.number<double>(what);
  }
}

void read_array(Cursor& cursor, Value& value, const std::string& what) {
  value.element = value_type(cursor, what);
  value.count = cursor.number<std::uint64_t>(what);
  if (value.element == ValueType::array) throw FileError(what + " is an array of arrays");
  const int size = scalar_bytes(value.element);
  if (size != 0) {
    if (value.count > cursor.remaining() / static_cast<std::uint64_t>(size)) {
      throw FileError("the file ends inside " + what + " (" + std::to_string(value.count) +
                      " array elements announced)");
    }
    value.bytes = cursor.take(value.count * static_cast<std::uint64_t>(size), what);
    return;
  }
  Cursor strings = cursor;
  for (std::uint64_t index = 0; index < value.count; ++index) cursor.string(what);
  value.bytes = strings.take(cursor.position() - strings.position(), what);
}

Value read_value(Cursor& cursor, const std::string& what) {
  Value value;
  value.type = value_type(cursor, what);
  if (value.type == ValueType::string) {
    value.text = cursor.string(what);
  } else if (value.type == ValueType::array) {
    read_array(cursor, value, what);
  } else {
    read_scalar(cursor, value, what);
  }
  return value;
}

std::optional<TensorType> tensor_type(std::uint32_t number) {
  for (const auto type :
       {TensorType::f32, TensorType::f16, TensorType::q4_0, TensorType::q4_1, TensorType::q8_0}) {
    if (static_cast<std::uint32_t>(type) == number) return type;
  }
  return std::nullopt;
}

struct Entry {
  std::string_view name;
  Tensor tensor;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

Entry read_entry(Cursor& cursor) {
  Entry entry;
  entry.name = cursor.string("a tensor's name");
  const std::string what = "tensor " + quoted(entry.name);
  const auto rank = cursor.number<std::uint32_t>(what);
  if (rank < 1 || rank > 4) {
    throw FileError(what + " has " + std::to_string(rank) + " dimensions, not 1 to 4");
  }
  entry.tensor.rank = static_cast<int>(rank);
  std::int64_t elements = 1;
  for (std::uint32_t dim = 0; dim < rank; ++dim) {
    const std::int64_t extent = to_signed(cursor.number<std::uint64_t>(what));
    if (extent < 1 || extent > kMostExtent) {
      throw FileError(what + " has a dimension outside 1 to 2147483647");
    }
    if (elements > std::numeric_limits<std::int64_t>::max() / 64 / extent) {
      throw FileError(what + " has dimensions whose product overflows");
    }
    elements *= extent;
    entry.tensor.extents[dim] = extent;
  }
  const auto number = cursor.number<std::uint32_t>(what);
  const auto type = tensor_type(number);
  if (!type) {
    throw FileError(what + " has type " + std::to_string(number) +
                    ", which is not among those read here: F32 (0), F16 (1), Q4_0 (2), Q4_1 (3) "
                    "and Q8_0 (8)");
  }
  const TypeLayout layout = layout_of(*type);
  if (entry.tensor.extents[0] % layout.block != 0) {
    throw FileError(what + " has rows of " + std::to_string(entry.tensor.extents[0]) +
                    " numbers, which is no multiple of its block of " +
                    std::to_string(layout.block));
  }
  entry.tensor.type = *type;
  entry.offset = cursor.number<std::uint64_t>(what);
  entry.bytes = static_cast<std::uint64_t>(elements / layout.block) *
                static_cast<std::uint64_t>(layout.bytes);
  return entry;
}

}  // namespace

TypeLayout layout_of(TensorType type) {
  switch (type) {
    case TensorType::f16:
      return {.block = 1, .bytes = 2};
    case TensorType::q4_0:
      return {.block = 32, .bytes = 18};
    case TensorType::q4_1:
      return {.block = 32, .bytes = 20};
    case TensorType::q8_0:
      return {.block = 32, .bytes = 34};
    default:
      return {.block = 1, .bytes = 4};
  }
}

Gguf::Gguf(std::span<const std::byte> bytes) {
  Cursor cursor(bytes);
  if (cursor.number<std::uint32_t>("the GGUF header") != kMagic) {
    throw FileError("this is not a GGUF file: it does not begin with the letters GGUF");
  }
  const auto version = cursor.number<std::uint32_t>("the GGUF header");
  if (version != 2 && version != 3) {
    throw FileError("GGUF version " + std::to_string(version) +
                    " is not supported; 2 and 3 in little-endian order are");
  }
  const auto num_tensors = cursor.number<std::uint64_t>("the GGUF header");
  const auto num_values = cursor.number<std::uint64_t>("the GGUF header");
  // The smallest entries: a name's length, a type and one byte; a name's length, rank, type,
  // offset.
  if (num_values > cursor.remaining() / 13 || num_tensors > cursor.remaining() / 24) {
    throw FileError("the file announces " + std::to_string(num_values) + " metadata entries and " +
                    std::to_string(num_tensors) + " tensors, more than its size can hold");
  }
  for (std::uint64_t index = 0; index < num_values; ++index) {
    const auto key = cursor.string("a metadata key");
    const std::string what = "metadata " + quoted(key);
    if (!values_.emplace(key, read_value(cursor, what)).second) {
      throw FileError(what + " appears twice");
    }
  }
  std::vector<Entry> entries;
  entries.reserve(num_tensors);
  for (std::uint64_t index = 0; index < num_tensors; ++index) {
    entries.push_back(read_entry(cursor));
  }

  const auto alignment = static_cast<std::uint64_t>(
      integer("general.alignment", 1, static_cast<int>(kMostAlignment), 32));
  if ((alignment & (alignment - 1)) != 0) {
    throw FileError("general.alignment is " + std::to_string(alignment) + ", not a power of two");
  }
  const std::uint64_t begin = (cursor.position() + alignment - 1) / alignment * alignment;
  const std::uint64_t available = begin < bytes.size() ? bytes.size() - begin : 0;
  for (Entry& entry : entries) {
    const std::string what = "tensor " + quoted(entry.name);
    if (entry.offset % alignment != 0) {
      throw FileError(what + " does not begin at a multiple of the alignment " +
                      std::to_string(alignment));
    }
    if (entry.offset > available || entry.bytes > available - entry.offset) {
      throw FileError("the file ends before the data of " + what + " (" +
                      std::to_string(entry.bytes) + " bytes at offset " +
                      std::to_string(entry.offset) + " of " + std::to_string(available) + ")");
    }
    entry.tensor.data = bytes.subspan(begin + entry.offset, entry.bytes);
    if (!tensors_.emplace(entry.name, entry.tensor).second) {
      throw FileError(what + " appears twice");
    }
  }
}

const Value* Gguf::value(std::string_view key, bool required) const {
  const auto found = values_.find(key);
  if (found != values_.end()) return &found->second;
  if (required) throw FileError("the file has no metadata " + quoted(key));
  return nullptr;
}

int Gguf::integer(std::string_view key, int lowest, int highest,
                  std::optional<int> fallback) const {
  const Value* found = value(key, !fallback);
  if (found == nullptr) return *fallback;
  const bool whole = scalar_bytes(found->type) != 0 && found->type != ValueType::float32 &&
                     found->type != ValueType::float64 && found->type != ValueType::boolean;
  if (!whole) throw FileError("metadata " + quoted(key) + " is not an integer");
  if (found->integer < lowest || found->integer > highest) {
    throw FileError("metadata " + quoted(key) + " is " + std::to_string(found->integer) +
                    ", outside " + std::to_string(lowest) + " to " + std::to_string(highest));
  }
  return static_cast<int>(found->integer);
}

double Gguf::real(std::string_view key, std::optional<double> fallback) const {
  const Value* found = value(key, !fallback);
  if (found == nullptr) return *fallback;
  if (found->type != ValueType::float32 && found->type != ValueType::float64) {
    throw FileError("metadata " + quoted(key) + " is not a float");
  }
  if (!std::isfinite(found->real)) throw FileError("metadata " + quoted(key) + " is not finite");
  return found->real;
}

bool Gguf::boolean(std::string_view key, bool fallback) const {
  const Value* found = value(key, false);
  if (found == nullptr) return fallback;
  if (found->type != ValueType::boolean) {
    throw FileError("metadata " + quoted(key) + " is not a boolean");
  }
  return found->integer != 0;
}

std::string_view Gguf::text(std::string_view key, std::optional<std::string_view> fallback) const {
  const Value* found = value(key, !fallback);
  if (found == nullptr) return *fallback;
  if (found->type != ValueType::string) {
    throw FileError("metadata " + quoted(key) + " is not a string");
  }
  return found->text;
}

std::vector<std::string_view> Gguf::texts(std::string_view key) const {
  const Value* found = value(key, true);
  if (found->type != ValueType::array || found->element != ValueType::string) {
    throw FileError("metadata " + quoted(key) + " is not an array of strings");
  }
  Cursor cursor(found->bytes);
  std::vector<std::string_view> out;
  out.reserve(found->count);
  for (std::uint64_t index = 0; index < found->count; ++index) out.push_back(cursor.string(key));
  return out;
}

std::vector<int> Gguf::integers(std::string_view key) const {
  const Value* found = value(key, true);
  const bool fits = found->type == ValueType::array &&
                    (found->element == ValueType::int32 || found->element == ValueType::uint32);
  if (!fits) throw FileError("metadata " + quoted(key) + " is not an array of 32-bit integers");
  std::vector<int> out(found->count);
  if (!out.empty()) std::memcpy(out.data(), found->bytes.data(), found->bytes.size());
  return out;
}

const Tensor* Gguf::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const Tensor& Gguf::tensor(std::string_view name) const {
  if (const Tensor* found = find(name)) return *found;
  throw FileError("the file has no tensor " + quoted(name));
}

}  // namespace kvast::decoder
