// SPDX-License-Identifier: Apache-2.0
// 10,000 random operations on every policy x storage x grouped query heads.
#include "tests/laws/history.h"

namespace kvast::test {
namespace {

class LongHistory : public testing::TestWithParam<Cell> {};

TEST_P(LongHistory, KeepsTheLaws) {
  run_history(GetParam(), 10000, 20 + static_cast<std::uint64_t>(GetParam().group));
}

INSTANTIATE_TEST_SUITE_P(Laws, LongHistory, testing::ValuesIn(every_cell()),
                         [](const auto& cell) { return cell.param.identifier(); });

}  // namespace
}  // namespace kvast::test
