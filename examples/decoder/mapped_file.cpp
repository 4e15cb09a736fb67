// SPDX-License-Identifier: Apache-2.0
// Maps a file into memory for reading.
#include "examples/decoder/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "examples/decoder/gguf.h"

namespace kvast::decoder {

MappedFile::MappedFile(const std::string& path) {
  const auto fail = [&path] {
    throw FileError("cannot read " + path + ": " +
                    std::error_code(errno, std::generic_category()).message());
  };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail();
  struct stat facts {};
  const bool known = ::fstat(file, &facts) == 0;
  void* mapping = MAP_FAILED;
  const bool regular = known && S_ISREG(facts.st_mode) && facts.st_size > 0;
  if (regular) {
    mapping =
        ::mmap(nullptr, static_cast<std::size_t>(facts.st_size), PROT_READ, MAP_PRIVATE, file, 0);
  }
  const int reason = errno;
  ::close(file);
  errno = reason;
  if (known && !regular) throw FileError("cannot read " + path + ": it is empty or no file");
  if (!known || mapping == MAP_FAILED) fail();
  bytes_ = {static_cast<const std::byte*>(mapping), static_cast<std::size_t>(facts.st_size)};
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

}  // namespace kvast::decoder
