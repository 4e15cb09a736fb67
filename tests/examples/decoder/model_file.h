// SPDX-License-Identifier: Apache-2.0
// Where the tests find the model file, and what they do without it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "examples/decoder/gguf.h"
#include "examples/decoder/mapped_file.h"

namespace kvast::decoder {

/// A fixture whose tests run on the file named by KVAST_MODEL. Without it they are skipped with a
/// message, or fail where KVAST_REQUIRE_MODEL=1.
class WithModel : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("KVAST_MODEL");
    const char* required = std::getenv("KVAST_REQUIRE_MODEL");
    if (path == nullptr || *path == '\0') {
      const std::string message =
          "the model file is missing: set KVAST_MODEL to SmolLM2-135M-Instruct.Q4_1.gguf";
      if (required != nullptr && std::string(required) == "1") FAIL() << message;
      GTEST_SKIP() << message;
    }
    file_ = std::make_unique<MappedFile>(path);
    gguf_ = std::make_unique<Gguf>(file_->bytes());
  }

  const Gguf& gguf() const { return *gguf_; }
  std::span<const std::byte> bytes() const { return file_->bytes(); }

 private:
  std::unique_ptr<MappedFile> file_;
  std::unique_ptr<Gguf> gguf_;
};

/// A file of the repository; tests run in its root.
inline std::string read_repository_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path << ": run the tests in the repository's root";
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace kvast::decoder
