// SPDX-License-Identifier: Apache-2.0
// Every policy with Kivi<4>, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

std::vector<Cell> kivi4_cells() { return cells_of<Kivi<4>>("Kivi<4>"); }

}  // namespace kvast::test
