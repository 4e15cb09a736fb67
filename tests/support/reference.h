// SPDX-License-Identifier: Apache-2.0
// Attention over one layer's kept tokens, as naive loops in double. Shares no code with the
// library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvast::test {

/// Nearest binary16 of a number, ties to even; overflow gives infinity. By arithmetic, not by bits.
inline double nearest_half(double number) {
  if (number == 0.0 || !std::isfinite(number)) return number;
  const int exponent = std::max(std::ilogb(number), -14);
  const double unit = std::ldexp(1.0, exponent - 10);
  const double rounded = std::nearbyint(number / unit) * unit;
  return std::abs(rounded) >= 65520.0 ? std::copysign(INFINITY, number) : rounded;
}

/// RoPE: pair p turns by position * frequencies[p].
struct ReferenceRope {
  std::vector<double> frequencies{};  ///< width / 2
  bool interleaved = false;           ///< (dim, dim + 1) turn together; else (dim, dim + width / 2)
  double scale = 1.0;

  void turn(std::vector<double>& vector, int position) const {
    const std::size_t pairs = frequencies.size();
    for (std::size_t pair = 0; pair < pairs; ++pair) {
      const std::size_t one = interleaved ? 2 * pair : pair;
      const std::size_t two = interleaved ? 2 * pair + 1 : pair + pairs;
      const double angle = position * frequencies[pair];
      const double x = vector[one];
      const double y = vector[two];
      vector[one] = scale * (x * std::cos(angle) - y * std::sin(angle));
      vector[two] = scale * (x * std::sin(angle) + y * std::cos(angle));
    }
  }
};

/// What may change a logit or the softmax. Zero and null: nothing.
struct ReferenceRules {
  double scale = 0.0;  ///< 0: 1 / sqrt(head_dim)
  double softcap = 0.0;
  int window = 0;
  const float* sinks = nullptr;  ///< [query_heads]
  const float* bias = nullptr;   ///< [query_heads][bias_stride], by position
  std::int64_t bias_stride = 0;
  const ReferenceRope* rope = nullptr;  ///< keys and queries turn by their rank among kept tokens
};

/// One query head's look at the kept tokens of its head.
struct ReferenceSight {
  std::vector<double> output;   ///< [value_dim]
  std::vector<double> weights;  ///< one per kept token, 0 where hidden
  double log_sum_exp = 0.0;
  int visible = 0;
};

class ReferenceLayer {
 public:
  struct Token {
    int position;
    std::vector<double> key;
    std::vector<double> value;
  };

  ReferenceLayer(int query_heads, int heads, int head_dim, int value_dim)
      : query_heads_(query_heads), heads_(heads), head_dim_(head_dim), value_dim_(value_dim) {
    kept_.resize(static_cast<std::size_t>(heads));
  }

  std::vector<Token>& kept(int head) { return kept_[static_cast<std::size_t>(head)]; }

  /// keys [n, heads, head_dim], values [n, heads, value_dim].
  void append(std::span<const int> positions, const float* keys, const float* values) {
    for (const int position : positions) {
      for (int head = 0; head < heads_; ++head) {
        kept(head).push_back({position, {keys, keys + head_dim_}, {values, values + value_dim_}});
        keys += head_dim_;
        values += value_dim_;
      }
    }
  }

  /// Forgets all tokens of a head but those at `positions`.
  void keep(int head, const std::vector<int>& positions) {
    std::erase_if(kept(head), [&](const Token& token) {
      return std::find(positions.begin(), positions.end(), token.position) == positions.end();
    });
  }

  ReferenceSight attend(int query_head, int position, const float* query,
                        const ReferenceRules& rules = {}) {
    const std::vector<Token>& tokens = kept(query_head / (query_heads_ / heads_));
    const double scale = rules.scale == 0.0 ? 1.0 / std::sqrt(head_dim_) : rules.scale;
    std::vector<double> turned(query, query + head_dim_);
    if (rules.rope != nullptr) {
      int rank = -1;
      for (const Token& token : tokens) rank += token.position <= position ? 1 : 0;
      rules.rope->turn(turned, rank);
    }
    ReferenceSight sight;
    std::vector<double> logits;
    for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
      const Token& token = tokens[rank];
      const bool hidden = token.position > position ||
                          (rules.window > 0 && token.position <= position - rules.window);
      if (hidden) {
        logits.push_back(-INFINITY);
        continue;
      }
      std::vector<double> key = token.key;
      if (rules.rope != nullptr) rules.rope->turn(key, static_cast<int>(rank));
      double logit = 0.0;
      for (std::size_t dim = 0; dim < key.size(); ++dim) logit += turned[dim] * key[dim];
      logit *= scale;
      if (rules.softcap > 0.0) logit = rules.softcap * std::tanh(logit / rules.softcap);
      if (rules.bias != nullptr)
        logit += static_cast<double>(rules.bias[query_head * rules.bias_stride + token.position]);
      logits.push_back(logit);
      ++sight.visible;
    }
    double most = *std::max_element(logits.begin(), logits.end());
    if (rules.sinks != nullptr) most = std::max(most, static_cast<double>(rules.sinks[query_head]));
    double sum = 0.0;
    if (rules.sinks != nullptr)
      sum += std::exp(static_cast<double>(rules.sinks[query_head]) - most);
    for (const double logit : logits) sum += std::exp(logit - most);
    sight.log_sum_exp = most + std::log(sum);
    sight.output.assign(static_cast<std::size_t>(value_dim_), 0.0);
    for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
      const double weight = std::exp(logits[rank] - sight.log_sum_exp);
      sight.weights.push_back(weight);
      for (std::size_t dim = 0; dim < sight.output.size(); ++dim)
        sight.output[dim] += weight * tokens[rank].value[dim];
    }
    return sight;
  }

 private:
  int query_heads_;
  int heads_;
  int head_dim_;
  int value_dim_;
  std::vector<std::vector<Token>> kept_;  // [heads], ascending positions
};

/// Relative L2 distance of `got` to `wanted`.
template <class Number>
double relative_error(const Number* got, const std::vector<double>& wanted) {
  double difference = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < wanted.size(); ++at) {
    const double apart = static_cast<double>(got[at]) - wanted[at];
    difference += apart * apart;
    norm += wanted[at] * wanted[at];
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace kvast::test
