// SPDX-License-Identifier: Apache-2.0
// Every policy with External, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

std::vector<Cell> external_cells() { return cells_of<External>("External"); }

}  // namespace kvast::test
