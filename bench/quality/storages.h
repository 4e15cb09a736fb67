// SPDX-License-Identifier: Apache-2.0
// Storages by name.
#pragma once

#include <string>
#include <vector>

#include "bench/quality/any_cache.h"
#include "kvast/storage/any_storage.h"

namespace kvast::quality {

/// The storage that a SPEC names. Throws SpecError naming the valid names or keys.
AnyStorage read_storage(const std::string& text);

std::vector<Listed> list_storages();

}  // namespace kvast::quality
