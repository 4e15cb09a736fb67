// SPDX-License-Identifier: Apache-2.0
// 2,000 random operations on every policy x storage: pins, budgets, bytes.
#include "tests/laws/history.h"

namespace kvast::test {
namespace {

class History : public testing::TestWithParam<Cell> {};

TEST_P(History, KeepsTheLaws) { run_history(GetParam(), 2000, 11); }

INSTANTIATE_TEST_SUITE_P(Laws, History, testing::ValuesIn(all_cells()), [](const auto& cell) {
  std::string name = cell.param.name();
  std::erase_if(name, [](char letter) { return std::isalnum(letter) == 0; });
  return name;
});

}  // namespace
}  // namespace kvast::test
