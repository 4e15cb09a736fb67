// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/storages.h"
#include "bench/quality/typed_cache.h"

namespace kvast::quality {

std::unique_ptr<AnyCache> make_f16(Spec& spec, const std::string& policy, const CacheSetup* setup) {
  spec.finish();
  return setup == nullptr ? nullptr : make_typed(policy, Dense<half>{}, *setup);
}

}  // namespace kvast::quality
