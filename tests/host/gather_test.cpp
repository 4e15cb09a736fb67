// SPDX-License-Identifier: Apache-2.0
// gather: rows of the caller's own tensors, within their bounds.
#include "kvast/host/gather.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr int kTokens = 5, kHeads = 2, kDim = 3;

struct Tensors {
  std::vector<float> from = std::vector<float>(kTokens * kHeads * kDim);
  std::vector<float> to = std::vector<float>(2 * kHeads * kDim, -1.0F);
  Tensors() { std::iota(from.begin(), from.end(), 0.0F); }
  View source() const {
    View view{std::span<const float>(from)};
    view.token_stride = kHeads * kDim;
    return view;
  }
  OutputView target() {
    OutputView view{std::span<float>(to)};
    view.token_stride = kHeads * kDim;
    return view;
  }
};

TEST(Gather, TakesTheRowsOfOneHead) {
  Tensors tensors;
  const std::vector<int> tokens{4, 1};
  gather(tokens, tensors.source(), 1, kDim, tensors.target());
  // head_stride 0 means dim: row (token, head) starts at (2 * token + head) * 3
  EXPECT_EQ(tensors.to, (std::vector<float>{-1, -1, -1, 27, 28, 29, -1, -1, -1, 9, 10, 11}));
}

TEST(Gather, RefusesRowsThatAreNotThere) {
  Tensors tensors;
  const auto refused = [&](std::vector<int> tokens, int head, std::vector<std::string> parts) {
    expect_refused([&] { gather(tokens, tensors.source(), head, kDim, tensors.target()); }, parts);
    EXPECT_EQ(tensors.to[0], -1.0F);
  };
  refused({99}, 0, {"from", "30 elements", "row 99"});
  refused({-1}, 0, {"tokens", "-1"});
  refused({4}, 2, {"from", "30 elements", "head 2"});
  refused({0, 1, 2}, 0, {"to", "12 elements", "row 2"});
  refused({0}, -1, {"head is -1"});
  View wild = tensors.source();
  wild.token_stride = std::int64_t{1} << 62U;
  expect_refused([&] { gather(std::vector<int>{2}, wild, 0, kDim, tensors.target()); },
                 {"from", "strides", "2^40"});
  View unknown = tensors.source();
  unknown.token_stride = 0;
  expect_refused([&] { gather(std::vector<int>{0}, unknown, 0, kDim, tensors.target()); },
                 {"from", "strides", "0"});
}

}  // namespace
}  // namespace kvast
