// expect: PrefillThenDecode: where one part keeps one set per layer
// SPDX-License-Identifier: Apache-2.0
#include "kvast/kvast.h"

namespace kvast {

PrefillThenDecode<SnapKV, TOVA> never;

}  // namespace kvast
