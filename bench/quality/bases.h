// SPDX-License-Identifier: Apache-2.0
// Bases by name: what may stand before a format in a storage's SPEC.
#pragma once

#include <span>

#include "bench/quality/any_cache.h"
#include "bench/quality/spec.h"
#include "kvast/storage/any_storage.h"

namespace kvast::quality {

/// Reads the basis's keys from `spec` and puts it before `inner`. With a null `inner` it only asks
/// (for --list).
using BasisReader = AnyStorage (*)(Spec& spec, const AnyStorage* inner, const CacheSetup* setup);
struct BasisName {
  const char* name;
  BasisReader read;
};

std::span<const BasisName> bases();

}  // namespace kvast::quality
