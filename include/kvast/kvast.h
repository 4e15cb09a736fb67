// SPDX-License-Identifier: Apache-2.0
// Everything for the CPU user.
#pragma once

#include "kvast/kv_cache.h"
#include "kvast/policy/corm.h"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/l2_norm.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"
#include "kvast/policy/tova.h"
#include "kvast/storage/any_storage.h"
#include "kvast/storage/dense.h"
#include "kvast/storage/external.h"
#include "kvast/storage/kivi.h"
