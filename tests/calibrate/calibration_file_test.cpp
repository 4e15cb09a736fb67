// SPDX-License-Identifier: Apache-2.0
// The calibration file: what comes back is what was written, and damage anywhere is refused.
#include "kvast/calibrate/calibration_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/calibrate/made_up.h"

namespace kvast {
namespace {

const Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16, .value_dim = 8};

TEST(Checksum, IsTheOneOfZlib) {
  const std::string text = "123456789";
  EXPECT_EQ(crc32(std::as_bytes(std::span(text))), 0xCBF43926U);
  EXPECT_EQ(crc32({}), 0U);
}

TEST(CalibrationFile, ComesBackAsItWas) {
  const Calibration made = test::random_calibration(kShape, true);
  const auto bytes = calibration_bytes(made);
  Result<Calibration> read = read_calibration(bytes, kShape);
  ASSERT_TRUE(read) << read.status().message();
  EXPECT_EQ(read->before_rope, true);
  EXPECT_EQ(read->tokens, 1000);
  ASSERT_EQ(read->layers.size(), 2U);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(read->shapes[layer].query_heads, 4);
    EXPECT_EQ(read->layers[layer].keys.heads, 1);
    EXPECT_EQ(read->layers[layer].values.heads, 2);
    EXPECT_EQ(read->layers[layer].keys.vectors, made.layers[layer].keys.vectors);
    EXPECT_EQ(read->layers[layer].values.vectors, made.layers[layer].values.vectors);
    EXPECT_EQ(read->layers[layer].keys.energies, made.layers[layer].keys.energies);
    EXPECT_EQ(read->layers[layer].values.energies, made.layers[layer].values.energies);
  }
  EXPECT_EQ(calibration_bytes(*read), bytes);
}

TEST(CalibrationFile, DamageAtAnyByteIsRefused) {
  auto bytes = calibration_bytes(test::random_calibration(kShape, true));
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const unsigned change : {1U, 0x80U, 0xFFU}) {
      bytes[at] ^= static_cast<std::byte>(change);
      Result<Calibration> read = read_calibration(bytes);
      ASSERT_FALSE(read) << "byte " << at;
      ASSERT_EQ(read.status().code(), StatusCode::damaged);
      bytes[at] ^= static_cast<std::byte>(change);
    }
  }
  for (std::size_t size = 0; size < bytes.size(); ++size)
    ASSERT_FALSE(read_calibration(std::span(bytes).first(size))) << size << " bytes";
  bytes.push_back(std::byte{0});
  EXPECT_FALSE(read_calibration(bytes));
}

/// Whoever changes a file and sums it up again is not believed either.
TEST(CalibrationFile, CountsThatCannotBeAreRefused) {
  const auto bytes = calibration_bytes(test::random_calibration(kShape, true));
  for (std::size_t at = 13; at < 52; ++at) {
    for (const unsigned value : {0U, 7U, 0xFFU}) {
      auto changed = std::vector<std::byte>(bytes.begin(), bytes.end() - 4);
      if (changed[at] == static_cast<std::byte>(value)) continue;
      changed[at] = static_cast<std::byte>(value);
      const std::uint32_t sum = crc32(changed);
      for (unsigned byte = 0; byte < 4; ++byte)
        changed.push_back(static_cast<std::byte>(sum >> (8 * byte)));
      Result<Calibration> read = read_calibration(changed);
      // any count of tokens, and of query heads that the heads divide, is some model's
      const bool is_tokens = at >= 16 && at < 24;
      const bool is_queries = at >= 28 && at < 32;
      if (!is_tokens && !is_queries) {
        ASSERT_FALSE(read) << "byte " << at << " = " << value;
      }
    }
  }
}

TEST(CalibrationFile, LaterVersionsAreNamed) {
  auto bytes = calibration_bytes(test::random_calibration(kShape));
  bytes.erase(bytes.end() - 4, bytes.end());  // its checksum
  bytes[8] = std::byte{9};
  const std::uint32_t sum = crc32(bytes);
  for (unsigned byte = 0; byte < 4; ++byte)
    bytes.push_back(static_cast<std::byte>(sum >> (8 * byte)));
  Result<Calibration> read = read_calibration(bytes);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.status().code(), StatusCode::unreadable);
  EXPECT_NE(read.status().message().find("version 9"), std::string::npos);
}

TEST(CalibrationFile, AnotherModelIsRefusedWithBothShapes) {
  const auto bytes = calibration_bytes(test::random_calibration(kShape));
  const auto expect = [&](const ShapeList& model, const std::vector<std::string>& parts) {
    Result<Calibration> read = read_calibration(bytes, model);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.status().code(), StatusCode::mismatch);
    for (const std::string& part : parts)
      EXPECT_NE(read.status().message().find(part), std::string::npos)
          << part << " in " << read.status().message();
  };
  Shape other = kShape;
  other.head_dim = 32;
  expect(other, {"layer 0", "4 query heads on 2 of 16 and 8", "4 query heads on 2 of 32 and 8"});
  other = kShape;
  other.layers = 3;
  expect(other, {"2 layers", "3", "of 16 and 8"});
  other = kShape;
  other.layers = 1;
  Shape last = other;
  last.query_heads = 8;
  expect(ShapeList({other, last}), {"layer 1", "8 query heads", "4 query heads"});
}

TEST(CalibrationFile, OnDisk) {
  const auto folder = std::filesystem::temp_directory_path() / "kvast_calibration_test";
  std::filesystem::create_directories(folder);
  const std::string file = (folder / "made.kvc").string();
  const Calibration made = test::random_calibration(kShape, true);
  ASSERT_TRUE(save_calibration(made, file));
  Result<Calibration> read = load_calibration(file);
  ASSERT_TRUE(read);
  EXPECT_EQ(calibration_bytes(*read), calibration_bytes(made));
  // what cannot be written leaves what was there
  std::filesystem::create_directories(file + ".part");
  EXPECT_EQ(save_calibration(test::random_calibration(kShape), file).code(),
            StatusCode::unreadable);
  EXPECT_EQ(calibration_bytes(*load_calibration(file)), calibration_bytes(made));
  std::filesystem::remove(file + ".part");
  EXPECT_EQ(load_calibration(folder.string()).status().code(), StatusCode::unreadable);
  EXPECT_EQ(save_calibration(made, folder.string()).code(), StatusCode::unreadable);
  std::filesystem::resize_file(file, 1000);
  read = load_calibration(file);
  EXPECT_EQ(read.status().code(), StatusCode::damaged);
  EXPECT_NE(read.status().message().find(file), std::string::npos);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(load_calibration(file).status().code(), StatusCode::unreadable);
  EXPECT_EQ(save_calibration(made, file).code(), StatusCode::unreadable);
}

}  // namespace
}  // namespace kvast
