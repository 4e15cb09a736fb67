// SPDX-License-Identifier: Apache-2.0
// Writes small GGUF files in memory, right or deliberately wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace kvast::decoder {

/// Appends metadata and tensors in the order of calls; finish() gives the file. Wrong input is
/// written as it is.
class GgufWriter {
 public:
  std::uint32_t magic = 0x46554747;
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::int64_t extra_tensors = 0;  ///< added to the announced count
  std::int64_t extra_values = 0;

  void text(std::string_view key, std::string_view value) {
    begin(key, 8);
    string(values_, value);
  }
  void integer(std::string_view key, std::uint32_t value) {
    begin(key, 4);
    number(values_, value);
  }
  void real(std::string_view key, float value) {
    begin(key, 6);
    number(values_, value);
  }
  void texts(std::string_view key, const std::vector<std::string>& entries) {
    begin(key, 9);
    number(values_, std::uint32_t{8});
    number(values_, std::uint64_t{entries.size()});
    for (const std::string& entry : entries) string(values_, entry);
  }
  void integers(std::string_view key, const std::vector<std::int32_t>& entries) {
    begin(key, 9);
    number(values_, std::uint32_t{5});
    number(values_, std::uint64_t{entries.size()});
    for (const std::int32_t entry : entries) number(values_, entry);
  }
  /// A value of any type, already encoded.
  void raw(std::string_view key, std::uint32_t type, const std::string& bytes) {
    begin(key, type);
    values_ += bytes;
  }

  void tensor(std::string_view name, std::uint32_t type, const std::vector<std::uint64_t>& extents,
              const std::string& bytes) {
    tensor_at(name, type, extents, data_.size());
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  }
  /// Only the table's entry, with any offset.
  void tensor_at(std::string_view name, std::uint32_t type,
                 const std::vector<std::uint64_t>& extents, std::uint64_t offset) {
    ++num_tensors_;
    string(table_, name);
    number(table_, static_cast<std::uint32_t>(extents.size()));
    for (const std::uint64_t extent : extents) number(table_, extent);
    number(table_, type);
    number(table_, offset);
  }

  std::vector<std::byte> finish() const {
    std::string file;
    number(file, magic);
    number(file, version);
    number(file, static_cast<std::int64_t>(num_tensors_ + extra_tensors));
    number(file, static_cast<std::int64_t>(num_values_ + extra_values));
    file += values_ + table_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    file += data_;
    std::vector<std::byte> bytes(file.size());
    std::memcpy(bytes.data(), file.data(), file.size());
    return bytes;
  }

  template <class Number>
  static void number(std::string& to, Number value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    to.append(bytes, sizeof value);
  }
  static void string(std::string& to, std::string_view value) {
    number(to, std::uint64_t{value.size()});
    to += value;
  }

 private:
  void begin(std::string_view key, std::uint32_t type) {
    ++num_values_;
    string(values_, key);
    number(values_, type);
  }

  std::string values_, table_, data_;
  std::int64_t num_values_ = 0, num_tensors_ = 0;
};

}  // namespace kvast::decoder
