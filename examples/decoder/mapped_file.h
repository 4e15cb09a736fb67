// SPDX-License-Identifier: Apache-2.0
// A file mapped into memory, so that a model starts at once and its weights are shared between
// programs.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace kvast::decoder {

/// A file mapped read-only. The file must not be cut while it is mapped: the system would end the
/// program at the next read.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  ///< throws FileError with the system's reason
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace kvast::decoder
