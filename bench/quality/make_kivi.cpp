// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/storages.h"
#include "bench/quality/typed_cache.h"

namespace kvast::quality {

std::unique_ptr<AnyCache> make_kivi(Spec& spec, const std::string& policy,
                                    const CacheSetup* setup) {
  const int bits = spec.number("bits", 4);
  const int residual = spec.number("residual", Kivi<4>{}.residual);
  spec.finish();
  if (bits != 4) throw SpecError("SPEC 'kivi': bits is " + std::to_string(bits) + ", must be 4");
  return setup == nullptr ? nullptr : make_typed(policy, Kivi<4>{.residual = residual}, *setup);
}

}  // namespace kvast::quality
