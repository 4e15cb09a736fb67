// SPDX-License-Identifier: Apache-2.0
// The same where the compiler may take it that there is no NaN (-ffast-math).
#include "tests/policy/nan_reduce_test.cpp"
