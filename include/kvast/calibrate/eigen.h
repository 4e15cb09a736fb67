// SPDX-License-Identifier: Apache-2.0
// Eigen, the library of linear algebra: no other header of ours includes it.
#pragma once

// g++ 12 takes the lanes that AVX-512's intrinsics leave undefined for a mistake, wherever Eigen is
// inlined.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
