// SPDX-License-Identifier: Apache-2.0
// Random operations on every policy x storage x grouped query heads: pins, budgets, bytes.
#include "tests/laws/history.h"

namespace kvast::test {
namespace {

constexpr int kOperations = 600;  // every situation several times; the long ones are slow tests

class History : public testing::TestWithParam<Cell> {};

TEST_P(History, KeepsTheLaws) {
  run_history(GetParam(), kOperations, 10 + static_cast<std::uint64_t>(GetParam().group));
}

INSTANTIATE_TEST_SUITE_P(Laws, History, testing::ValuesIn(all_cells()),
                         [](const auto& cell) { return cell.param.identifier(); });

}  // namespace
}  // namespace kvast::test
