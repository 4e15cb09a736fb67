// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/on_device.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace kvast::quality {

namespace {

/// Keys and values that attention on the device reads: each pair is a kernel.
struct Formats {
  std::string_view keys;
  std::string_view values;
};
constexpr Formats kFormats[] = {{"f32", "f32"},   {"f16", "f16"},   {"bf16", "bf16"},
                                {"int8", "int8"}, {"int4", "int4"}, {"int2", "int2"},
                                {"int8", "int4"}, {"int4", "int2"}, {"fp8-e4m3", "fp8-e4m3"}};

[[noreturn]] void refuse(const std::string& why) { throw OffDevice(true, why); }

void check_bases(const StoragePlan& plan) {
  if (plan.key_basis.directions != nullptr || plan.value_basis.directions != nullptr)
    refuse("it keeps keys or values of low rank");
  if (plan.channels.chooses()) refuse("it drops channels of keys");
}

}  // namespace

DeviceStorage device_storage(const AnyStorage& storage, const Shape& shape) {
  DeviceStorage made;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const StoragePlan plan = storage.plan<Simd>(layer);
    if (plan.dense_keys == nullptr) refuse("it keeps no keys and values");
    check_bases(plan);
    const bool coded = plan.coded_keys != nullptr;
    made.layers.push_back({.coded = coded,
                           .residual = coded ? plan.residual : 0,
                           .first_coded = coded ? plan.first_coded : 0,
                           .rotates = coded && plan.key_basis.rotates,
                           .seed = plan.key_basis.seed});
    if (coded || made.keys.empty()) {
      made.keys = (coded ? plan.coded_keys : plan.dense_keys)->name;
      made.values = (coded ? plan.coded_values : plan.dense_values)->name;
    }
  }
  const auto known = [&](const Formats& formats) {
    return formats.keys == made.keys && formats.values == made.values;
  };
  if (std::none_of(std::begin(kFormats), std::end(kFormats), known)) {
    std::string message = "no attention there reads keys in " + made.keys + " and values in " +
                          made.values + "; pairs that it reads are";
    for (const Formats& formats : kFormats)
      message.append(" ").append(formats.keys).append("/").append(formats.values);
    refuse(message);
  }
  return made;
}

}  // namespace kvast::quality
