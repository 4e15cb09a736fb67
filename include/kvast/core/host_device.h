// SPDX-License-Identifier: Apache-2.0
// KVAST_HD, the library's one macro: a function that runs on the host and, under nvcc, on the
// device.
#pragma once

#if defined(__CUDACC__)
#define KVAST_HD __host__ __device__
#else
#define KVAST_HD
#endif
