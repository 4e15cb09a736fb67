// SPDX-License-Identifier: Apache-2.0
// 10,000 random operations, for every policy with the storages at the two ends.
#include "tests/laws/cells.h"
#include "tests/laws/history.h"

namespace kvast::test {
namespace {

TEST(LongHistory, DenseKeepsTheLaws) {
  for (const Cell& cell : cells_of<Dense<half>>("Dense<half>")) run_history(cell, 10000, 21);
}

TEST(LongHistory, CodedKeepsTheLaws) {
  for (const Cell& cell : cells_of<Kivi<4>>("Kivi<4>")) run_history(cell, 10000, 22);
}

}  // namespace
}  // namespace kvast::test
