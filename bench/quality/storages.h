// SPDX-License-Identifier: Apache-2.0
// Storages by name.
#pragma once

#include <string>
#include <vector>

#include "bench/quality/any_cache.h"
#include "kvast/storage/any_storage.h"

namespace kvast::quality {

/// The storage that a SPEC names: a format, or bases before one, basis+basis+format; without a
/// format they stand before f16. `setup` may be null, for storages that need no model. Throws
/// SpecError naming the valid names or keys.
AnyStorage read_storage(const std::string& text, const CacheSetup* setup = nullptr);

/// Whether some layer's key basis is of keys that the model has not rotated yet. Throws Error where
/// the storage does not fit the shape.
bool wants_unrotated(const AnyStorage& storage, const Shape& shape);

std::vector<Listed> list_storages();

}  // namespace kvast::quality
