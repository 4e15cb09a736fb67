// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/storages.h"

#include "bench/quality/bases.h"
#include "bench/quality/spec.h"
#include "kvast/storage/dense.h"
#include "kvast/storage/float8.h"
#include "kvast/storage/integer.h"
#include "kvast/storage/kivi.h"
#include "kvast/storage/rotated.h"

namespace kvast::quality {

namespace {

KeepDense read_keep(Spec& spec) {
  KeepDense keep{.tokens = spec.number("first", 0)};
  for (const int layer : spec.list("layers", {})) keep.layers.add(layer);
  return keep;
}

AnyStorage read_f32(Spec&) { return Dense<float>{}; }
AnyStorage read_f16(Spec&) { return Dense<half>{}; }
AnyStorage read_bf16(Spec&) { return Dense<BF16>{}; }

template <int KeyBits, int ValueBits>
AnyStorage kivi(int residual, const KeepDense& keep) {
  return Kivi<KeyBits, ValueBits>{.residual = residual, .keep = keep};
}
AnyStorage read_kivi(Spec& spec) {
  const int bits = spec.number("bits", 4);
  const int keys = spec.number("k", bits);
  const int values = spec.number("v", bits);
  const int residual = spec.number("residual", Kivi<4>{}.residual);
  const KeepDense keep = read_keep(spec);
  constexpr int kBits[] = {2, 3, 4, 8};
  using Make = AnyStorage (*)(int, const KeepDense&);
  constexpr Make kMakers[4][4] = {{kivi<2, 2>, kivi<2, 3>, kivi<2, 4>, kivi<2, 8>},
                                  {kivi<3, 2>, kivi<3, 3>, kivi<3, 4>, kivi<3, 8>},
                                  {kivi<4, 2>, kivi<4, 3>, kivi<4, 4>, kivi<4, 8>},
                                  {kivi<8, 2>, kivi<8, 3>, kivi<8, 4>, kivi<8, 8>}};
  const auto place = [&](const char* key, int wanted) {
    const auto* found = std::find(std::begin(kBits), std::end(kBits), wanted);
    if (found == std::end(kBits))
      throw SpecError(std::string("SPEC 'kivi': ") + key + " is " + std::to_string(wanted) +
                      ", must be 2, 3, 4 or 8");
    return found - std::begin(kBits);
  };
  return kMakers[place(keys == bits ? "bits" : "k", keys)]
                [place(values == bits ? "bits" : "v", values)](residual, keep);
}
AnyStorage read_int8(Spec& spec) { return Int8{.keep = read_keep(spec)}; }
AnyStorage read_int4(Spec& spec) { return Int4{.keep = read_keep(spec)}; }
AnyStorage read_fp8(Spec& spec) {
  const bool wide = spec.choice("kind", {"e4m3", "e5m2"}, 0) == 1;
  const KeepDense keep = read_keep(spec);
  if (wide) return Float8<E5M2>{.keep = keep};
  return Float8<E4M3>{.keep = keep};
}

AnyStorage read_turbo(Spec& spec) {
  const int bits = spec.number("bits", 3);
  const int residual = spec.number("residual", 0);
  const KeepDense keep = read_keep(spec);
  const auto seed = static_cast<std::uint64_t>(spec.number("seed", 1));
  switch (bits) {
    case 2:
      return TurboQuant<2>{.residual = residual, .keep = keep, .seed = seed};
    case 3:
      return TurboQuant<3>{.residual = residual, .keep = keep, .seed = seed};
    case 4:
      return TurboQuant<4>{.residual = residual, .keep = keep, .seed = seed};
    default:
      throw SpecError("SPEC 'turbo': bits is " + std::to_string(bits) + ", must be 2, 3 or 4");
  }
}

struct StorageName {
  const char* name;
  AnyStorage (*read)(Spec& spec);
};
constexpr StorageName kStorages[] = {{"f32", read_f32},   {"f16", read_f16},    {"bf16", read_bf16},
                                     {"kivi", read_kivi}, {"int8", read_int8},  {"int4", read_int4},
                                     {"fp8", read_fp8},   {"turbo", read_turbo}};

std::string basis_names() {
  std::string names;
  for (const BasisName& known : bases()) names += std::string(" ") + known.name;
  return names;
}

AnyStorage read_format(Spec& spec) {
  std::string names;
  for (const StorageName& known : kStorages) {
    if (spec.name() == known.name) {
      AnyStorage storage = known.read(spec);
      spec.finish();
      storage.validate(Caller::here());
      return storage;
    }
    names += std::string(" ") + known.name;
  }
  throw SpecError("unknown storage '" + spec.name() + "'; valid are" + names + basis_names());
}

const BasisName* find_basis(const std::string& name) {
  for (const BasisName& known : bases()) {
    if (name == known.name) return &known;
  }
  return nullptr;
}

AnyStorage read_parts(std::span<const std::string> parts, const CacheSetup* setup) {
  Spec spec = Spec::parse(parts[0]);
  const BasisName* basis = find_basis(spec.name());
  if (basis == nullptr && parts.size() > 1)
    throw SpecError("unknown basis '" + spec.name() + "'; valid are" + basis_names());
  AnyStorage inner = Dense<half>{};
  if (parts.size() > 1) inner = read_parts(parts.subspan(1), setup);
  try {
    return basis == nullptr ? read_format(spec) : basis->read(spec, &inner, setup);
  } catch (const Error& error) {
    throw SpecError("SPEC '" + parts[0] + "': " + error.sentence());
  }
}

}  // namespace

AnyStorage read_storage(const std::string& text, const CacheSetup* setup) {
  return read_parts(Spec::split(text, '+'), setup);
}

bool wants_unrotated(const AnyStorage& storage, const Shape& shape) {
  storage.validate(Caller::here());
  storage.validate_shape(shape, Caller::here());
  for (int layer = 0; layer < shape.layers; ++layer) {
    if (storage.plan<Simd>(layer).before_rope) return true;
  }
  return false;
}

std::vector<Listed> list_storages() {
  std::vector<Listed> all;
  for (const StorageName& known : kStorages) {
    Spec spec = Spec::parse(known.name);
    (void)known.read(spec);
    all.push_back({"storage", known.name, spec.keys()});
  }
  for (const BasisName& known : bases()) {
    Spec spec = Spec::parse(known.name);
    (void)known.read(spec, nullptr, nullptr);
    all.push_back({"basis", known.name, spec.keys()});
  }
  return all;
}

}  // namespace kvast::quality
