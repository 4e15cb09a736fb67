// SPDX-License-Identifier: Apache-2.0
// The activations of a pass, laid out so that every step of the model runs along tokens, whatever
// it computes.
#pragma once

#include <cstddef>
#include <vector>

namespace kvast::decoder {

inline constexpr int kPanelTokens = 32;

/// Activations [panels, features, lanes]: 32 neighbouring tokens of one feature lie side by side,
/// so a product reuses a weight over them and norms, rotations and activations need no
/// transposition between products. A single token has one lane, which makes it a plain vector.
/// Lanes beyond the last token hold zeros or rubbish that no live lane ever reads.
class Panels {
 public:
  /// Makes room for `tokens` >= 1 tokens; the contents are then unspecified. Allocates only when it
  /// grows.
  void resize(int tokens, int features) {
    tokens_ = tokens;
    features_ = features;
    lanes_ = tokens == 1 ? 1 : kPanelTokens;
    const std::size_t size = static_cast<std::size_t>(panels()) * panel_size();
    if (numbers_.size() < size) numbers_.resize(size);
  }

  int tokens() const { return tokens_; }
  int features() const { return features_; }
  int lanes() const { return lanes_; }
  int panels() const { return (tokens_ + lanes_ - 1) / lanes_; }

  /// The lanes of one feature; the next feature's follow.
  float* at(int panel, int feature) { return numbers_.data() + offset(panel, feature); }
  const float* at(int panel, int feature) const { return numbers_.data() + offset(panel, feature); }

  /// Tokens of a panel that exist.
  int live(int panel) const {
    const int rest = tokens_ - panel * lanes_;
    return rest < lanes_ ? rest : lanes_;
  }

 private:
  std::size_t panel_size() const {
    return static_cast<std::size_t>(features_) * static_cast<std::size_t>(lanes_);
  }
  std::size_t offset(int panel, int feature) const {
    return static_cast<std::size_t>(panel) * panel_size() +
           static_cast<std::size_t>(feature) * static_cast<std::size_t>(lanes_);
  }

  int tokens_ = 0;
  int features_ = 0;
  int lanes_ = 1;
  std::vector<float> numbers_;
};

}  // namespace kvast::decoder
