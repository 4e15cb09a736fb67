// SPDX-License-Identifier: Apache-2.0
// Storages by name. Each is instantiated with every policy in a translation unit of its own.
#pragma once

#include <memory>
#include <string>

#include "bench/quality/any_cache.h"
#include "bench/quality/spec.h"

namespace kvast::quality {

/// Reads the storage's keys from `spec`; with a setup it also makes the cache, without it only asks
/// (for --list).
using StorageMaker = std::unique_ptr<AnyCache> (*)(Spec& spec, const std::string& policy,
                                                   const CacheSetup* setup);

std::unique_ptr<AnyCache> make_f32(Spec& spec, const std::string& policy, const CacheSetup* setup);
std::unique_ptr<AnyCache> make_f16(Spec& spec, const std::string& policy, const CacheSetup* setup);
std::unique_ptr<AnyCache> make_kivi(Spec& spec, const std::string& policy, const CacheSetup* setup);

struct StorageName {
  const char* name;
  StorageMaker make;
};
inline constexpr StorageName kStorages[] = {
    {"f32", make_f32}, {"f16", make_f16}, {"kivi", make_kivi}};

}  // namespace kvast::quality
