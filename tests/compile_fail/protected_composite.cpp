// expect: Protect: wrap the parts of a policy made of others, not the whole
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

Protect<PerLayer<Full, H2O>> never;

}  // namespace kvast
