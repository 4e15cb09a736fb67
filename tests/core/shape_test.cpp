// SPDX-License-Identifier: Apache-2.0
// Shape, ShapeList, Rope: what is refused, and that the sentence names the argument and the values.
#include "kvast/core/shape.h"

#include <gtest/gtest.h>

#include "kvast/core/rope.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

TEST(Shape, RefusesWhatCannotBe) {
  const auto list = [](Shape shape) { return [shape] { ShapeList{shape}; }; };
  expect_refused(list({.layers = 0, .head_dim = 64}), {"shape.layers is 0", "[1, 4096]"});
  expect_refused(list({.layers = -3, .head_dim = 64}), {"shape.layers is -3"});
  expect_refused(list({.layers = 5000, .head_dim = 64}), {"shape.layers is 5000"});
  expect_refused(list({.heads = 0, .head_dim = 64}), {"shape.heads is 0"});
  expect_refused(list({.query_heads = 9000, .heads = 9000, .head_dim = 64}),
                 {"shape.heads is 9000"});
  expect_refused(list({.query_heads = 7, .heads = 3, .head_dim = 64}),
                 {"shape.query_heads is 7", "shape.heads, 3"});
  expect_refused(list({.query_heads = 0, .heads = 1, .head_dim = 64}), {"shape.query_heads is 0"});
  expect_refused(list({.query_heads = 5000, .heads = 1, .head_dim = 64}),
                 {"shape.query_heads is 5000", "4096"});
  for (const int dim : {0, -8, 4, 12, 520, 2147483647, -2147483647}) {
    expect_refused(list({.head_dim = dim}), {"shape.head_dim is " + std::to_string(dim)});
    if (dim != 0) {
      expect_refused(list({.head_dim = 64, .value_dim = dim}),
                     {"shape.value_dim is " + std::to_string(dim)});
    }
  }
  expect_refused([] { ShapeList(std::vector<Shape>{}); }, {"at least one layer"});
  expect_refused(
      [] {
        ShapeList(
            std::vector<Shape>{{.layers = 4000, .head_dim = 8}, {.layers = 97, .head_dim = 8}});
      },
      {"4096"});
}

TEST(Shape, ErrorsCarryTheCallersLine) {
  try {
    ShapeList list{Shape{.head_dim = 1}};
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("shape_test.cpp:"), std::string::npos) << error.what();
  }
}

TEST(Shape, RunsOfLayersAreLaidOutInOrder) {
  const ShapeList list(std::vector<Shape>{
      {.layers = 2, .query_heads = 8, .heads = 2, .head_dim = 64},
      {.layers = 1, .query_heads = 4, .heads = 4, .head_dim = 96, .value_dim = 40}});
  ASSERT_EQ(list.layers(), 3);
  EXPECT_EQ(list[0].group(), 4);
  EXPECT_EQ(list[1].values(), 64);
  EXPECT_EQ(list[2].head_dim, 96);
  EXPECT_EQ(list[2].values(), 40);
  EXPECT_EQ(list[2].layers, 1);
}

TEST(Rope, RefusesWhatCannotBe) {
  const auto validate = [](Rope rope) { return [rope] { rope.validate(64, Caller::here()); }; };
  for (const int width : {-2, 1, 3, 66, 128}) {
    Rope rope = Rope::plain(std::max(width, 0), 1e4, Pairing::halves);
    rope.width = width;
    expect_refused(validate(rope), {"rope.width is " + std::to_string(width), "64"});
  }
  Rope rope = Rope::plain(32, 1e4, Pairing::halves);
  rope.inverse_frequencies.pop_back();
  expect_refused(validate(rope), {"rope.inverse_frequencies has 15", "16"});
  for (const float scale : {0.0F, -1.0F, INFINITY, NAN}) {
    rope = Rope::plain(32, 1e4, Pairing::halves);
    rope.scale = scale;
    expect_refused(validate(rope), {"rope.scale is "});
  }
  for (const float frequency : {INFINITY, NAN}) {
    rope = Rope::plain(32, 1e4, Pairing::halves);
    rope.inverse_frequencies[3] = frequency;
    expect_refused(validate(rope), {"rope.inverse_frequencies"});
  }
}

TEST(Rope, PlainFrequenciesFallByThePowerOfTheBase) {
  const Rope rope = Rope::plain(8, 10000.0, Pairing::interleaved);
  ASSERT_EQ(rope.inverse_frequencies.size(), 4U);
  for (std::size_t pair = 0; pair < 4; ++pair)
    EXPECT_FLOAT_EQ(rope.inverse_frequencies[pair],
                    static_cast<float>(std::pow(10.0, -static_cast<double>(pair))));
}

}  // namespace
}  // namespace kvast
