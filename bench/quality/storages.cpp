// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/storages.h"

#include "bench/quality/spec.h"
#include "kvast/storage/dense.h"
#include "kvast/storage/kivi.h"

namespace kvast::quality {

namespace {

AnyStorage read_f32(Spec&) { return Dense<float>{}; }
AnyStorage read_f16(Spec&) { return Dense<half>{}; }
AnyStorage read_kivi(Spec& spec) {
  const int bits = spec.number("bits", 4);
  const int residual = spec.number("residual", Kivi<4>{}.residual);
  if (bits != 4) throw SpecError("SPEC 'kivi': bits is " + std::to_string(bits) + ", must be 4");
  return Kivi<4>{.residual = residual};
}

struct StorageName {
  const char* name;
  AnyStorage (*read)(Spec& spec);
};
constexpr StorageName kStorages[] = {{"f32", read_f32}, {"f16", read_f16}, {"kivi", read_kivi}};

}  // namespace

AnyStorage read_storage(const std::string& text) {
  if (Spec::split(text, '+').size() != 1)
    throw SpecError("storage '" + text + "': no basis is known to compose with '+'");
  Spec spec = Spec::parse(text);
  std::string names;
  for (const StorageName& known : kStorages) {
    if (spec.name() == known.name) {
      AnyStorage storage = known.read(spec);
      spec.finish();
      return storage;
    }
    names += std::string(" ") + known.name;
  }
  throw SpecError("unknown storage '" + spec.name() + "'; valid are" + names);
}

std::vector<Listed> list_storages() {
  std::vector<Listed> all;
  for (const StorageName& known : kStorages) {
    Spec spec = Spec::parse(known.name);
    (void)known.read(spec);
    all.push_back({"storage", known.name, spec.keys()});
  }
  return all;
}

}  // namespace kvast::quality
