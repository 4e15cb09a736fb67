// expect: Every: the policy has a Batch already, which would not count
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Every<Protect<Every<H2O, 4>>, 8> never;

}  // namespace kvast
