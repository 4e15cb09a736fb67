// SPDX-License-Identifier: Apache-2.0
// Norm, activation and the way into and out of panels, for one lane and for many.
#include "examples/decoder/layers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace kvast::decoder {
namespace {

TEST(Layers, PackAndUnpackAreInverse) {
  for (const int tokens : {1, 2, 32, 33, 100}) {
    const int features = 70;
    std::vector<float> rows(static_cast<std::size_t>(tokens * features));
    for (std::size_t at = 0; at < rows.size(); ++at) rows[at] = static_cast<float>(at + 1);
    Panels panels;
    panels.resize(tokens, features);
    std::vector<float> back(rows.size());
    std::vector<float> part(static_cast<std::size_t>(tokens * 5));
    for (int panel = 0; panel < panels.panels(); ++panel) {
      pack(rows.data(), panels, panel);
      unpack(panels, panel, 0, features, back.data());
      unpack(panels, panel, 65, 5, part.data());
    }
    EXPECT_EQ(back, rows);
    EXPECT_EQ(part.back(), rows.back());
    EXPECT_EQ(part.front(), 66.0F);
    const int last = panels.panels() - 1;
    for (int lane = panels.live(last); lane < panels.lanes(); ++lane) {
      EXPECT_EQ(panels.at(last, features - 1)[lane], 0.0F);
    }
  }
}

TEST(Layers, ActivationOverTheWholeRange) {
  Panels gates, output;
  for (float gate = -120.0F; gate <= 120.0F; gate += 0.037F) {
    gates.resize(1, 2);
    output.resize(1, 1);
    *gates.at(0, 0) = gate;
    *gates.at(0, 1) = -3.0F;
    activate(gates, 0, output);
    const double wide = static_cast<double>(gate);
    const double expected = wide / (1.0 + std::exp(-wide)) * -3.0;
    EXPECT_NEAR(static_cast<double>(*output.at(0, 0)), expected, 1e-6 * std::fabs(expected) + 1e-30)
        << gate;
  }
}

TEST(Layers, NormOfEveryLane) {
  std::mt19937 random(2);
  std::normal_distribution<float> number(0.0F, 3.0F);
  const int features = 66;
  std::vector<float> gain(features);
  for (float& each : gain) each = number(random);
  for (const int tokens : {1, 40}) {
    std::vector<float> rows(static_cast<std::size_t>(tokens * features));
    for (float& each : rows) each = number(random);
    Panels input, output;
    input.resize(tokens, features);
    output.resize(tokens, features);
    std::vector<float> normed(rows.size());
    for (int panel = 0; panel < input.panels(); ++panel) {
      pack(rows.data(), input, panel);
      normalize(input, panel, gain.data(), 1e-5F, output);
      unpack(output, panel, 0, features, normed.data());
    }
    for (std::size_t token = 0; token < static_cast<std::size_t>(tokens); ++token) {
      double squares = 0;
      for (std::size_t at = 0; at < gain.size(); ++at) {
        squares += std::pow(static_cast<double>(rows[token * gain.size() + at]), 2);
      }
      const double root = std::sqrt(squares / features + 1e-5);
      for (std::size_t at = 0; at < gain.size(); ++at) {
        const double expected = static_cast<double>(rows[token * gain.size() + at]) / root *
                                static_cast<double>(gain[at]);
        EXPECT_NEAR(static_cast<double>(normed[token * gain.size() + at]), expected, 2e-5);
      }
    }
  }
}

}  // namespace
}  // namespace kvast::decoder
