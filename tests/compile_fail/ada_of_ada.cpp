// expect: AdaHeads: the policy shares its budget already
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

AdaHeads<Pyramid<AdaHeads<H2O>>> never;

}  // namespace kvast
