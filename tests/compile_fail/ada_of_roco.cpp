// expect: AdaHeads: the policy's ranks say nothing beside another head's
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

AdaHeads<RoCo> never;

}  // namespace kvast
