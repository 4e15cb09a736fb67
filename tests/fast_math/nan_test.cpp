// SPDX-License-Identifier: Apache-2.0
// The same where the compiler may take it that there is no NaN (-ffast-math): order comes from
// bits.
#include "tests/policy/nan_test.cpp"
