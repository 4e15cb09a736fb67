// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/any_cache.h"
#include "bench/quality/policy_specs.h"
#include "bench/quality/storages.h"

namespace kvast::quality {

std::unique_ptr<AnyCache> make_cache(const std::string& policy, const std::string& storage,
                                     const CacheSetup& setup) {
  if (Spec::split(storage, '+').size() != 1)
    throw SpecError("storage '" + storage + "': no basis is known to compose with '+'");
  Spec spec = Spec::parse(storage);
  std::string names;
  for (const StorageName& known : kStorages) {
    if (spec.name() == known.name) return known.make(spec, policy, &setup);
    names += std::string(" ") + known.name;
  }
  throw SpecError("unknown storage '" + spec.name() + "'; valid are" + names);
}

std::vector<Listed> list_specs() {
  std::vector<Listed> all;
  for_each_policy([&](const char* name, auto read) {
    Spec spec = Spec::parse(name);
    (void)read(spec, 0);
    (void)spec.choice("positions", {"original", "compacted"}, 0);
    all.push_back({"policy", name, spec.keys()});
  });
  for (const StorageName& known : kStorages) {
    Spec spec = Spec::parse(known.name);
    (void)known.make(spec, "full", nullptr);
    all.push_back({"storage", known.name, spec.keys()});
  }
  return all;
}

}  // namespace kvast::quality
