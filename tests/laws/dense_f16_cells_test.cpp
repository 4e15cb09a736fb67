// SPDX-License-Identifier: Apache-2.0
// Every policy with Dense<half>, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

std::vector<Cell> dense_f16_cells() { return cells_of<Dense<half>>("Dense<half>"); }

}  // namespace kvast::test
