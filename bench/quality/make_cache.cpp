// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/any_cache.h"
#include "bench/quality/on_device.h"
#include "bench/quality/policies.h"
#include "bench/quality/storages.h"

namespace kvast::quality {

namespace {

template <class Visit>
void for_each_policy(Visit&& visit) {
  for (const auto table :
       {recency_policies, attention_policies, window_policies, vectors_policies}) {
    for (const PolicyName& known : table()) visit(known);
  }
}

}  // namespace

std::unique_ptr<AnyCache> make_cache(const std::string& policy, const std::string& storage,
                                     const CacheSetup& setup) {
  const AnyStorage kept = read_storage(storage, &setup);
  Spec spec = Spec::parse(policy);
  std::unique_ptr<AnyCache> made;
  std::string names;
  for_each_policy([&](const PolicyName& known) {
    names += std::string(" ") + known.name;
    if (spec.name() != known.name) return;
    try {
      made = known.make(spec, &kept, &setup);
    } catch (const Error& error) {
      throw SpecError("SPEC '" + policy + "': " + error.sentence());
    } catch (const OffDevice& error) {
      throw SpecError("SPEC '" + (error.storage ? storage : policy) + "': " + error.what());
    }
  });
  if (made == nullptr) throw SpecError("unknown policy '" + spec.name() + "'; valid are" + names);
  return made;
}

std::vector<Listed> list_specs() {
  std::vector<Listed> all;
  for_each_policy([&](const PolicyName& known) {
    Spec spec = Spec::parse(known.name);
    (void)known.make(spec, nullptr, nullptr);
    all.push_back({"policy", known.name, spec.keys()});
  });
  for (Listed& storage : list_storages()) all.push_back(storage);
  return all;
}

}  // namespace kvast::quality
