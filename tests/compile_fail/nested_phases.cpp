// expect: PrefillThenDecode: its parts may be PerHead, but not PerLayer
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

PrefillThenDecode<PerLayer<Full, H2O>, H2O> never;

}  // namespace kvast
