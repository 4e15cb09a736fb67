// expect: AdaHeads: a policy whose heads keep one set
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

AdaHeads<TOVA> never;

}  // namespace kvast
