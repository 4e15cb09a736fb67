// SPDX-License-Identifier: Apache-2.0
// The small steps of a layer; their loops run along lanes, which the compiler turns into vectors.
#include "examples/decoder/layers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kvast::decoder {
namespace {

constexpr int kTransposed =
    64;  // features turned at a time: 8 KiB of a panel stay in the first-level cache

/// e^x to 2e-7 relative, flat outside [-87, 88]. Written without branches or library calls, so that
/// loops over it become vectors.
float exponential(float x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
  x = x > -87.0F ? x : -87.0F;
  x = x < 88.0F ? x : 88.0F;
  const float shifted = x * 1.44269504F + kRound;
  const float whole = shifted - kRound;
  const float rest = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;  // ln 2 in two parts
  float power = 1.0F / 5040.0F;
  power = power * rest + 1.0F / 720.0F;
  power = power * rest + 1.0F / 120.0F;
  power = power * rest + 1.0F / 24.0F;
  power = power * rest + 1.0F / 6.0F;
  power = power * rest + 0.5F;
  power = power * rest + 1.0F;
  power = power * rest + 1.0F;
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) << 23U;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(power) + exponent);
}

/// Calls `body` with the lane count as a constant where it is 32.
template <class Body>
void with_lanes(int lanes, Body body) {
  if (lanes == kPanelTokens) {
    body(std::integral_constant<int, kPanelTokens>{});
  } else {
    body(std::integral_constant<int, 1>{});
  }
}

/// 1 / rms of the token of a single lane; four sums, as one would wait for itself.
float inverse_root(const float* input, int features, float epsilon) {
  float sums[4] = {};
  int feature = 0;
  for (; feature + 4 <= features; feature += 4) {
    for (int part = 0; part < 4; ++part)
      sums[part] += input[feature + part] * input[feature + part];
  }
  for (; feature < features; ++feature) sums[0] += input[feature] * input[feature];
  const float mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(features);
  return 1.0F / std::sqrt(mean + epsilon);
}

}  // namespace

void normalize(const Panels& input, int panel, const float* gain, float epsilon, Panels& output) {
  const int features = input.features();
  const float* from = input.at(panel, 0);
  float* to = output.at(panel, 0);
  if (input.lanes() == 1) {
    const float factor = inverse_root(from, features, epsilon);
    for (int feature = 0; feature < features; ++feature) {
      to[feature] = from[feature] * factor * gain[feature];
    }
    return;
  }
  float factors[kPanelTokens] = {};
  for (int feature = 0; feature < features; ++feature) {
    for (int lane = 0; lane < kPanelTokens; ++lane) {
      const float number = from[feature * kPanelTokens + lane];
      factors[lane] += number * number;
    }
  }
  for (float& factor : factors) {
    factor = 1.0F / std::sqrt(factor / static_cast<float>(features) + epsilon);
  }
  for (int feature = 0; feature < features; ++feature) {
    for (int lane = 0; lane < kPanelTokens; ++lane) {
      const int at = feature * kPanelTokens + lane;
      to[at] = from[at] * factors[lane] * gain[feature];
    }
  }
}

void activate(const Panels& gates, int panel, Panels& output) {
  const int count = output.features() * output.lanes();
  const float* gate = gates.at(panel, 0);
  const float* up = gates.at(panel, output.features());
  float* to = output.at(panel, 0);
  for (int index = 0; index < count; ++index) {
    to[index] = gate[index] / (1.0F + exponential(-gate[index])) * up[index];
  }
}

void Rotation::prepare(const Rope& rope, int first_position, int tokens) {
  const int pairs = rope.width / 2;
  cosines_.resize(tokens, pairs);
  sines_.resize(tokens, pairs);
  for (int token = 0; token < cosines_.panels() * cosines_.lanes(); ++token) {
    const int panel = token / cosines_.lanes();
    const int lane = token % cosines_.lanes();
    for (int pair = 0; pair < pairs; ++pair) {
      const double angle =
          static_cast<double>(first_position + token) *
          static_cast<double>(rope.inverse_frequencies[static_cast<std::size_t>(pair)]);
      cosines_.at(panel, pair)[lane] = static_cast<float>(std::cos(angle)) * rope.scale;
      sines_.at(panel, pair)[lane] = static_cast<float>(std::sin(angle)) * rope.scale;
    }
  }
}

void Rotation::apply(Panels& panels, int panel, int first_feature, int heads, int head_dim) const {
  with_lanes(panels.lanes(), [&](auto lanes) {
    constexpr int kLanes = decltype(lanes)::value;
    for (int head = 0; head < heads; ++head) {
      for (int pair = 0; pair < cosines_.features(); ++pair) {
        float* first = panels.at(panel, first_feature + head * head_dim + 2 * pair);
        float* second = first + kLanes;
        const float* cosine = cosines_.at(panel, pair);
        const float* sine = sines_.at(panel, pair);
        for (int lane = 0; lane < kLanes; ++lane) {
          const float turned = first[lane] * cosine[lane] - second[lane] * sine[lane];
          second[lane] = first[lane] * sine[lane] + second[lane] * cosine[lane];
          first[lane] = turned;
        }
      }
    }
  });
}

void unpack(const Panels& panels, int panel, int first, int count, float* rows) {
  const int lanes = panels.lanes();
  const float* from = panels.at(panel, first);
  for (int begin = 0; begin < count; begin += kTransposed) {
    const int end = std::min(begin + kTransposed, count);
    for (int lane = 0; lane < panels.live(panel); ++lane) {
      float* row = rows + static_cast<std::ptrdiff_t>(panel * lanes + lane) * count;
      for (int feature = begin; feature < end; ++feature) {
        row[feature] = from[feature * lanes + lane];
      }
    }
  }
}

void pack(const float* rows, Panels& panels, int panel) {
  const int lanes = panels.lanes();
  const int features = panels.features();
  const int live = panels.live(panel);
  float* to = panels.at(panel, 0);
  for (int begin = 0; begin < features; begin += kTransposed) {
    const int end = std::min(begin + kTransposed, features);
    for (int lane = 0; lane < lanes; ++lane) {
      const int token = panel * lanes + (lane < live ? lane : 0);
      const float* row = rows + static_cast<std::ptrdiff_t>(token) * features;
      for (int feature = begin; feature < end; ++feature) {
        to[feature * lanes + lane] = lane < live ? row[feature] : 0.0F;
      }
    }
  }
}

}  // namespace kvast::decoder
