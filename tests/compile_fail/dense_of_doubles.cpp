// expect: Dense: the element is float, kvast::half or kvast::BF16
// SPDX-License-Identifier: Apache-2.0
#include <kvast/storage/dense.h>

kvast::Dense<double> storage;
