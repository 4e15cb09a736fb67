// SPDX-License-Identifier: Apache-2.0
// 10,000 random operations, for every policy with the storages at the two ends.
#include "tests/laws/history.h"

namespace kvast::test {
namespace {

TEST(LongHistory, DenseKeepsTheLaws) {
  for (const Cell& cell : cells_with(LawStorage::f16)) run_history(cell, 10000, 21);
}

TEST(LongHistory, CodedKeepsTheLaws) {
  for (const Cell& cell : cells_with(LawStorage::kivi4)) run_history(cell, 10000, 22);
}

}  // namespace
}  // namespace kvast::test
