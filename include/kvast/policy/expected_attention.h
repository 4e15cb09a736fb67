// SPDX-License-Identifier: Apache-2.0
// ExpectedAttention: what queries like those of the prompt will attend to.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/core/rope.h"

namespace kvast {

/// Takes the prompt's queries as a normal distribution, turns it to the positions to come, and
/// keeps the tokens with the highest expected weight (times the norm of their value). Acts once at
/// a prompt's end, which must come in one pass; needs CacheOptions::rope where the model rotates.
/// Ref: Expected Attention, arXiv:2510.00636; kvpress' ExpectedAttentionPress.   State: none; the
/// moments live for one pass.
struct ExpectedAttention {
  int tokens_kept = 512;   ///< budget per head, sinks included
  int sinks = 4;           ///< first tokens, always kept; their queries are left out
  int future = 512;        ///< positions to come over which the rotation is averaged
  bool covariance = true;  ///< use the second moment
  bool value_norms = true;
  float epsilon = 0.0F;  ///< added to the expected weight before the norm multiplies it
  static constexpr When when = When::prompt();
  static constexpr Needs needs{.vectors = true, .query_moments = true, .whole_prompt = true};
  struct State {};

  int moments_from() const { return sinks; }
  void rank_head(HeadView<State> view, std::span<float> ranks) const {
    const auto dim = static_cast<std::size_t>(view.head_dim);
    const std::size_t count = ranks.size();
    const std::size_t group = view.query_means.size() / dim;
    const Token newest = view.tokens[count - 1];
    const std::vector<double> turn = mean_turn(view.rope, dim, newest.position + newest.age + 1);
    std::vector<double> expected(count, 0.0);
    std::vector<double> logits(count);
    for (std::size_t member = 0; member < group; ++member) {
      std::vector<double> mean(dim);
      const float* means = view.query_means.data() + member * dim;
      for (std::size_t row = 0; row < dim; ++row) {
        for (std::size_t at = 0; at < dim; ++at)
          mean[row] += turn[row * dim + at] * static_cast<double>(means[at]);
      }
      const std::vector<double> spread =
          covariance ? turned(turn, view.query_covariances.data() + member * dim * dim, dim)
                     : std::vector<double>{};
      double most = -1e300;
      for (std::size_t token = 0; token < count; ++token) {
        const float* key = view.keys.data() + token * dim;
        double first = 0.0;
        double second = 0.0;
        for (std::size_t row = 0; row < dim; ++row) {
          first += static_cast<double>(key[row]) * mean[row];
          if (!covariance) continue;
          double line = 0.0;
          for (std::size_t at = 0; at < dim; ++at)
            line += spread[row * dim + at] * static_cast<double>(key[at]);
          second += static_cast<double>(key[row]) * line;
        }
        logits[token] = first + second / 2.0;
        if (view.tokens[token].position >= sinks) most = std::max(most, logits[token]);
      }
      double total = 0.0;
      for (std::size_t token = 0; token < count; ++token) {
        if (view.tokens[token].position >= sinks) total += std::exp(logits[token] - most);
      }
      for (std::size_t token = 0; token < count; ++token)
        expected[token] += std::exp(logits[token] - most) / total / static_cast<double>(group);
    }
    for (std::size_t token = 0; token < count; ++token) {
      double score = expected[token];
      if (value_norms) {
        double squares = 0.0;
        for (int at = 0; at < view.value_dim; ++at) {
          const double number =
              static_cast<double>(view.values[token * static_cast<std::size_t>(view.value_dim) +
                                              static_cast<std::size_t>(at)]);
          squares += number * number;
        }
        score = (score + static_cast<double>(epsilon)) * std::sqrt(squares);
      }
      ranks[token] = view.tokens[token].position < sinks ? kPin : static_cast<float>(score);
    }
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.first = sinks}; }
  void validate(Caller caller) const {
    require(sinks >= 0, caller, "ExpectedAttention.sinks is ", sinks, ", must be at least 0");
    require(future >= 1 && future <= (1 << 20), caller, "ExpectedAttention.future is ", future,
            ", must lie in [1, 2^20]");
    require(epsilon >= 0.0F && std::isfinite(epsilon), caller, "ExpectedAttention.epsilon is ",
            epsilon, ", must be finite and at least 0");
    require(tokens_kept >= 1 && tokens_kept >= sinks, caller, "ExpectedAttention.tokens_kept is ",
            tokens_kept, ", must be at least 1 and at least sinks, ", sinks);
  }

 private:
  /// Mean of the rotations to positions [first, first + future): [dim, dim].
  std::vector<double> mean_turn(const Rope* rope, std::size_t dim, int first) const {
    std::vector<double> turn(dim * dim, 0.0);
    for (std::size_t at = 0; at < dim; ++at) turn[at * dim + at] = 1.0;
    if (rope == nullptr || rope->empty()) return turn;
    const auto pairs = static_cast<std::size_t>(rope->width / 2);
    const bool halves = rope->pairing == Pairing::halves;
    for (std::size_t pair = 0; pair < pairs; ++pair) {
      double cosine = 0.0;
      double sine = 0.0;
      for (int step = 0; step < future; ++step) {
        const double angle = static_cast<double>(first + step) *
                             static_cast<double>(rope->inverse_frequencies[pair]);
        cosine += std::cos(angle) * static_cast<double>(rope->scale) / future;
        sine += std::sin(angle) * static_cast<double>(rope->scale) / future;
      }
      const std::size_t one = halves ? pair : 2 * pair;
      const std::size_t two = halves ? pair + pairs : 2 * pair + 1;
      turn[one * dim + one] = turn[two * dim + two] = cosine;
      turn[one * dim + two] = -sine;
      turn[two * dim + one] = sine;
    }
    return turn;
  }
  /// turn * covariance * turn'. A row of `turn` has two numbers at most.
  static std::vector<double> turned(const std::vector<double>& turn, const float* covariance,
                                    std::size_t dim) {
    std::vector<double> half(dim * dim, 0.0);
    std::vector<double> whole(dim * dim, 0.0);
    for (std::size_t row = 0; row < dim; ++row) {
      for (std::size_t at = 0; at < dim; ++at) {
        const double factor = turn[row * dim + at];
        if (factor == 0.0) continue;
        for (std::size_t column = 0; column < dim; ++column)
          half[row * dim + column] += factor * static_cast<double>(covariance[at * dim + column]);
      }
    }
    for (std::size_t row = 0; row < dim; ++row) {
      for (std::size_t at = 0; at < dim; ++at) {
        const double factor = turn[row * dim + at];
        if (factor == 0.0) continue;
        for (std::size_t column = 0; column < dim; ++column)
          whole[column * dim + row] += factor * half[column * dim + at];
      }
    }
    return whole;
  }
};
static_assert(check_policy<ExpectedAttention>());

}  // namespace kvast
