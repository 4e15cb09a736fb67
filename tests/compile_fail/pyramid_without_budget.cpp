// expect: Pyramid: the policy has no budget to spread over layers
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Pyramid<StreamingLLM> never;

}  // namespace kvast
