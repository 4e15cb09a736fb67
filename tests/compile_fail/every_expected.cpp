// expect: Every: a policy that needs query_moments
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Every<ExpectedAttention, 8> never;

}  // namespace kvast
