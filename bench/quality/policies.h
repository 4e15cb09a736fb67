// SPDX-License-Identifier: Apache-2.0
// Policies by name. Each table is a translation unit of its own, so that they compile side by side.
#pragma once

#include <memory>
#include <span>

#include "bench/quality/any_cache.h"
#include "bench/quality/spec.h"
#include "kvast/storage/any_storage.h"

namespace kvast::quality {

/// Reads the policy's keys from `spec`; with a setup and a storage it also makes the cache, without
/// them it only asks (for --list).
using PolicyMaker = std::unique_ptr<AnyCache> (*)(Spec& spec, const AnyStorage* storage,
                                                  const CacheSetup* setup);
struct PolicyName {
  const char* name;
  PolicyMaker make;
};

std::span<const PolicyName> recency_policies();
std::span<const PolicyName> attention_policies();
std::span<const PolicyName> window_policies();
std::span<const PolicyName> vectors_policies();

}  // namespace kvast::quality
