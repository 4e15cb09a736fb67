// SPDX-License-Identifier: Apache-2.0
// The GGUF reader on good files, on damaged ones, and on files made to mislead it.
#include "examples/decoder/gguf.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <limits>
#include <random>

#include "examples/decoder/llama.h"
#include "examples/decoder/tokenizer.h"
#include "tests/examples/decoder/gguf_writer.h"
#include "tests/examples/decoder/model_file.h"
#include "tests/examples/decoder/tiny_model.h"

namespace kvast::decoder {
namespace {

constexpr std::uint32_t kF32 = 0;

/// What the reader says of a file: its error, or nothing. The bytes lie in a block of exactly their
/// size, so that the sanitizer sees any step outside.
std::string refusal(std::span<const std::byte> file) {
  const std::unique_ptr<std::byte[]> exact(new std::byte[file.size()]);
  std::copy(file.begin(), file.end(), exact.get());
  try {
    const Gguf gguf(std::span<const std::byte>(exact.get(), file.size()));
    return "";
  } catch (const FileError& error) {
    return error.what();
  }
}

void expect_refused(const GgufWriter& writer, const char* part) {
  const std::string said = refusal(writer.finish());
  EXPECT_NE(said.find(part), std::string::npos) << "said: " << said << "\nnot: " << part;
}

GgufWriter small_file() {
  GgufWriter writer;
  writer.text("name", "small");
  writer.integer("number", 7);
  writer.real("ratio", 0.5F);
  writer.texts("words", {"one", "", "three"});
  writer.integers("numbers", {1, -2, 3});
  writer.raw("flag", 7, std::string("\1", 1));
  writer.tensor("a", kF32, {2, 3}, std::string(24, '\0'));
  writer.tensor("b", 8, {32}, std::string(34, '\1'));
  return writer;
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const auto file = small_file().finish();
  const Gguf gguf(file);
  EXPECT_EQ(gguf.text("name"), "small");
  EXPECT_EQ(gguf.text("absent", "other"), "other");
  EXPECT_EQ(gguf.integer("number", 0, 10), 7);
  EXPECT_EQ(gguf.integer("absent", 0, 10, 3), 3);
  EXPECT_EQ(gguf.real("ratio"), 0.5);
  EXPECT_TRUE(gguf.boolean("flag", false));
  EXPECT_EQ(gguf.texts("words"), (std::vector<std::string_view>{"one", "", "three"}));
  EXPECT_EQ(gguf.integers("numbers"), (std::vector<int>{1, -2, 3}));
  EXPECT_EQ(gguf.tensor("a").data.size(), 24U);
  EXPECT_EQ(gguf.tensor("b").data.size(), 34U);
  EXPECT_EQ(gguf.tensor("b").data.front(), std::byte{1});
  EXPECT_EQ(gguf.find("c"), nullptr);
}

TEST(Gguf, RefusesValuesOfAnotherKind) {
  const auto file = small_file().finish();
  const Gguf gguf(file);
  EXPECT_THROW((void)gguf.integer("number", 0, 6), FileError);
  EXPECT_THROW((void)gguf.integer("ratio", 0, 6), FileError);
  EXPECT_THROW((void)gguf.integer("absent", 0, 6), FileError);
  EXPECT_THROW((void)gguf.real("number"), FileError);
  EXPECT_THROW((void)gguf.text("number"), FileError);
  EXPECT_THROW((void)gguf.texts("numbers"), FileError);
  EXPECT_THROW((void)gguf.integers("words"), FileError);
  EXPECT_THROW((void)gguf.boolean("number", true), FileError);
  EXPECT_THROW((void)gguf.tensor("c"), FileError);
}

TEST(Gguf, RefusesEveryTruncation) {
  const auto file = TinyModel(TensorType::q4_1, {.layers = 1}).writer.finish();
  for (std::size_t size = 0; size < file.size(); ++size) {
    const std::string said = refusal(std::span(file).first(size));
    // The last tensor's padding is no part of it.
    if (said.empty()) {
      EXPECT_GT(size + 32, file.size());
    }
  }
  EXPECT_EQ(refusal(file), "");
}

TEST(Gguf, SurvivesAnyChangedByte) {
  const auto good = TinyModel(TensorType::q8_0, {.layers = 1, .vocabulary = 8}).writer.finish();
  std::mt19937 random(11);
  std::uniform_int_distribution<int> byte(0, 255);
  for (std::size_t at = 0; at < std::min<std::size_t>(good.size(), 3000); ++at) {
    for (const int value : {0, 255, byte(random)}) {
      auto file = good;
      file[at] = static_cast<std::byte>(value);
      try {
        const Gguf gguf(file);
        const Llama model(gguf);
      } catch (const FileError&) {
        continue;
      }
    }
  }
}

TEST(Gguf, RefusesWrongHeaders) {
  GgufWriter writer = small_file();
  writer.magic = 0x46554746;
  expect_refused(writer, "not a GGUF file");
  writer = small_file();
  writer.version = 1;
  expect_refused(writer, "version 1");
  writer.version = 0x03000000;
  expect_refused(writer, "little-endian");
  for (const std::int64_t extra :
       {std::int64_t{1000}, std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::max() - 2,
        std::int64_t{-3}}) {
    writer = small_file();
    writer.extra_tensors = extra;
    expect_refused(writer, "more than its size can hold");
  }
  writer = small_file();
  writer.extra_values = std::int64_t{1} << 60;
  expect_refused(writer, "more than its size can hold");
  writer.extra_values = 1;
  EXPECT_NE(refusal(writer.finish()), "");
}

TEST(Gguf, RefusesWrongMetadata) {
  const auto with = [](std::uint32_t type, const std::string& bytes) {
    GgufWriter writer = small_file();
    writer.raw("wrong", type, bytes);
    return writer;
  };
  std::string array;
  const auto start_array = [&array](std::uint32_t type, std::uint64_t count) {
    array.clear();
    GgufWriter::number(array, type);
    GgufWriter::number(array, count);
  };
  expect_refused(with(13, "12345678"), "unknown value type 13");
  expect_refused(with(7, "\2"), "neither 0 nor 1");
  start_array(13, 1);
  expect_refused(with(9, array), "unknown value type 13");
  start_array(9, 1);
  expect_refused(with(9, array), "array of arrays");
  start_array(4, std::uint64_t{1} << 62);  // times four bytes: zero
  expect_refused(with(9, array), "ends inside");
  start_array(8, std::numeric_limits<std::uint64_t>::max());
  expect_refused(with(9, array), "ends inside");
  std::string endless;
  GgufWriter::number(endless, std::numeric_limits<std::uint64_t>::max());
  expect_refused(with(8, endless), "ends inside");
  GgufWriter twice = small_file();
  twice.text("name", "again");
  expect_refused(twice, "appears twice");
}

TEST(Gguf, RefusesWrongTensors) {
  const auto with = [](std::uint32_t type, const std::vector<std::uint64_t>& extents,
                       std::uint64_t offset = 0) {
    GgufWriter writer = small_file();
    writer.tensor_at("wrong", type, extents, offset);
    return writer;
  };
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  expect_refused(with(kF32, {}), "0 dimensions");
  expect_refused(with(kF32, {1, 1, 1, 1, 1}), "5 dimensions");
  expect_refused(with(kF32, {0}), "outside 1 to 2147483647");
  expect_refused(with(kF32, {most}), "outside 1 to 2147483647");
  expect_refused(with(kF32, {1U << 31U}), "outside 1 to 2147483647");
  const std::uint64_t large = std::numeric_limits<std::int32_t>::max();
  expect_refused(with(kF32, {large, large, large}), "product overflows");
  expect_refused(with(kF32, {large, large}), "product overflows");
  expect_refused(with(kF32, {1U << 20U, 1U << 20U}), "ends before the data");
  expect_refused(with(14, {256}), "type 14");
  expect_refused(with(most & 0xFFFFFFFFU, {256}), "type 4294967295");
  expect_refused(with(2, {48}), "no multiple of its block");
  expect_refused(with(kF32, {1}, 4), "multiple of the alignment");
  expect_refused(with(kF32, {1}, 4096), "ends before the data");
  expect_refused(with(kF32, {1}, most - 31), "ends before the data");
  GgufWriter twice = small_file();
  twice.tensor_at("a", kF32, {1}, 0);
  expect_refused(twice, "appears twice");
  for (const std::uint32_t alignment : {0U, 3U, 48U, 1U << 30U, 0xFFFFFFFFU}) {
    GgufWriter odd = small_file();
    odd.integer("general.alignment", alignment);
    expect_refused(odd, "general.alignment");
  }
}

TEST(Gguf, NamesOfADamagedFileReachNoTerminal) {
  GgufWriter writer = small_file();
  writer.tensor_at("\x1b[2J" + std::string(500, 'x'), 99, {1}, 0);
  const std::string said = refusal(writer.finish());
  EXPECT_EQ(said.find('\x1b'), std::string::npos);
  EXPECT_LT(said.size(), 300U);
}

TEST(MappedFile, SaysWhyAFileCannotBeRead) {
  EXPECT_THROW(MappedFile("no/such/file.gguf"), FileError);
  EXPECT_THROW(MappedFile("."), FileError);
  EXPECT_THROW(MappedFile("/dev/null"), FileError);
}

class ModelFile : public WithModel {};

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kDataCuts = 64;  // among tensors the reader takes the same path at each cut
#else
constexpr std::size_t kDataCuts = 1;
#endif

/// The file cut at every 4 KiB, each time mapped in front of memory that nobody may touch.
TEST_F(ModelFile, CutShortAtEvery4KiBIsRefused) {
  constexpr std::size_t kPage = 4096;
  const std::size_t pages = bytes().size() / kPage + 1;
  void* space = ::mmap(nullptr, (pages + 1) * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(space, MAP_FAILED);
  auto* copy = static_cast<std::byte*>(space);
  const auto data_begin =
      static_cast<std::size_t>(gguf().tensor("token_embd.weight").data.data() - bytes().data());
  std::size_t refused = 0, cuts = 0;
  for (std::size_t page = 0; page * kPage < bytes().size(); ++page) {
    const std::size_t size = page * kPage;
    const bool last = size + kPage >= bytes().size();
    if (size < data_begin || page % kDataCuts == 0 || last) {
      try {
        const Gguf damaged(std::span<const std::byte>(copy, size));
      } catch (const FileError& error) {
        refused += std::string(error.what()).empty() ? 0 : 1;
      }
      ++cuts;
    }
    ASSERT_EQ(::mprotect(copy + size, kPage, PROT_READ | PROT_WRITE), 0);
    const std::size_t count = std::min(kPage, bytes().size() - size);
    std::copy_n(bytes().begin() + static_cast<std::ptrdiff_t>(size), count, copy + size);
  }
  EXPECT_EQ(refused, cuts);
  EXPECT_GT(cuts, data_begin / kPage);
  ::munmap(space, (pages + 1) * kPage);
}

}  // namespace
}  // namespace kvast::decoder
