// expect: PerLayerBudget: the policy has no budget to replace
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

PerLayerBudget<Full> never;

}  // namespace kvast
