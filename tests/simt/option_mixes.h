// SPDX-License-Identifier: Apache-2.0
// What may change a logit, alone and together.
#pragma once

#include <vector>

#include "kvast/gpu/attend_options.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

struct MixSettings {
  int positions = 0;  ///< at most, of any token
  float scale = 0.0F;
  int window = 0;
};

/// visit(bits, rules, options) for a scale, a cap, a window, sinks and a bias, each alone, for none
/// of them (32) and for all (63). Of six query heads.
template <class Visit>
void each_option_mix(const MixSettings& settings, const Visit& visit) {
  constexpr int kHeads = 6;
  const std::vector<float> sinks_host = {0.5F, -1.0F, 3.0F, 8.0F, 0.0F, -2.0F};
  const DeviceVector<float> sinks = on_device(sinks_host);
  Random random(5);
  const DeviceVector<float> bias =
      on_device(random.normals(static_cast<std::size_t>(kHeads * settings.positions)));
  for (int bits = 1; bits < 64; bits = bits < 32 ? 2 * bits : bits + 31) {
    ReferenceRules rules;
    gpu::AttendOptions options;
    if ((bits & 1) != 0) rules.scale = options.scale = settings.scale;
    if ((bits & 2) != 0) rules.softcap = options.softcap = 5.0F;
    if ((bits & 4) != 0) rules.window = options.window = settings.window;
    if ((bits & 8) != 0) rules.sinks = options.sinks = sinks.data();
    if ((bits & 16) != 0) {
      rules.bias = options.bias.data = bias.data();
      rules.bias_stride = options.bias.head_stride = settings.positions;
    }
    visit(bits, rules, options);
  }
}

}  // namespace kvast::test
