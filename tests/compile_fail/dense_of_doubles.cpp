// expect: Dense: the element is float or kvast::half
// SPDX-License-Identifier: Apache-2.0
#include <kvast/storage/dense.h>

kvast::Dense<double> storage;
