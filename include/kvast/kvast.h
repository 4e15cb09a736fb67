// SPDX-License-Identifier: Apache-2.0
// Everything for the CPU user.
#pragma once

#include "kvast/kv_cache.h"
#include "kvast/policy/ada_heads.h"
#include "kvast/policy/corm.h"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/key_diff.h"
#include "kvast/policy/l2_norm.h"
#include "kvast/policy/lag_kv.h"
#include "kvast/policy/layer_budgets.h"
#include "kvast/policy/random.h"
#include "kvast/policy/roco.h"
#include "kvast/policy/scissorhands.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"
#include "kvast/policy/tova.h"
#include "kvast/policy/wrappers.h"
#include "kvast/storage/any_storage.h"
#include "kvast/storage/dense.h"
#include "kvast/storage/external.h"
#include "kvast/storage/kivi.h"
