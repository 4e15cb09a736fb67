// expect: Pyramid: the policy has budgets by layer already
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Pyramid<AdaHeads<PerLayerBudget<SnapKV>>> never;

}  // namespace kvast
