// SPDX-License-Identifier: Apache-2.0
// Every policy with Dense<float>, compiled once for all laws.
#include "tests/laws/cells.h"

namespace kvast::test {

std::vector<Cell> dense_f32_cells() { return cells_of<Dense<float>>("Dense<float>"); }

}  // namespace kvast::test
