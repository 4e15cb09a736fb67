// expect: PerLayerBudget: the policy has budgets by layer already
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

PerLayerBudget<Pyramid<H2O>> never;

}  // namespace kvast
