// expect: AdaHeads: the policy has no budget that heads could share
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

AdaHeads<StreamingLLM> never;

}  // namespace kvast
