// expect: Protect: the policy gives each token a place of its own
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Protect<Cascading> never;

}  // namespace kvast
