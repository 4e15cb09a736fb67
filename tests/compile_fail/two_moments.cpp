// expect: PerHead: only one part may need query_moments
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

PerHead<ExpectedAttention, ExpectedAttention> never;

}  // namespace kvast
