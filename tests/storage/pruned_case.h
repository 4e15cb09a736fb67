// SPDX-License-Identifier: Apache-2.0
// A cache that prunes channels, beside a simulation of it in double.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "kvast/kvast.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast::test {

struct PrunedSetting {
  Shape shape{.query_heads = 6, .heads = 2, .head_dim = 48, .value_dim = 40};
  float prune = 0.5F;
  int recent = 20;
  int window = 12;
  ChannelPairs pairs = ChannelPairs::none;
  double loudness = 0.7;  ///< by how much channels differ
  bool rotates = false;   ///< the cache rotates keys and queries itself
};

/// A cache of one layer beside a simulation of it in double.
template <class Policy, class Inner>
class BesidePruned {
 public:
  BesidePruned(const PrunedSetting& setting, Policy policy, Inner inner)
      : setting_(setting),
        cache_(setting.shape, policy,
               ThinK<Inner>{{inner}, setting.prune, setting.recent, setting.window, setting.pairs},
               pool_, options()),
        reference_(setting.shape.query_heads, setting.shape.heads, setting.shape.head_dim,
                   setting.shape.values()),
        sealed_(static_cast<std::size_t>(setting.shape.heads)),
        dropped_(sealed_.size()),
        energies_(sealed_.size()) {
    for (const float frequency : rope().inverse_frequencies)
      turns_.frequencies.push_back(static_cast<double>(frequency));
    // channels of different loudness, so that there is something to choose
    for (int at = 0; at < setting.shape.heads * setting.shape.head_dim; ++at)
      loud_.push_back(static_cast<float>(std::exp(setting.loudness * random_.normal())));
  }

  void run(int tokens, bool prompt, bool more = false) {
    const Shape& shape = setting_.shape;
    const auto made = [&](int heads, int dim) {
      auto numbers = random_.normals(static_cast<std::size_t>(tokens * heads * dim));
      for (int at = 0; dim == shape.head_dim && at < tokens * heads * dim; ++at) {
        const int head = at / dim % heads * shape.heads / heads;
        numbers[static_cast<std::size_t>(at)] *=
            loud_[static_cast<std::size_t>(head * dim + at % dim)];
      }
      return numbers;
    };
    const auto keys = made(shape.heads, shape.head_dim);
    const auto values = made(shape.heads, shape.values());
    const auto queries = made(shape.query_heads, shape.head_dim);
    std::vector<float> output(static_cast<std::size_t>(tokens * shape.query_heads * shape.values()),
                              NAN);
    const int first = cache_.length();
    auto pass = cache_.begin({.tokens = tokens, .last_of_prompt = prompt, .more_of_prompt = more});
    pass->append(0, std::span(keys), std::span(values));
    pass->attend(0, std::span(queries), std::span(output));
    for (int token = 0; token < tokens; ++token) {
      for (int head = 0; head < shape.heads; ++head) {
        const float* key = keys.data() + (token * shape.heads + head) * shape.head_dim;
        const float* value = values.data() + (token * shape.heads + head) * shape.values();
        reference_.kept(head).push_back(
            {first + token, turned(key, first + token), {value, value + shape.values()}});
      }
      for (int head = 0; head < shape.query_heads; ++head) {
        const float* query = queries.data() + (token * shape.query_heads + head) * shape.head_dim;
        const auto rotated = turned(query, first + token);
        if (prompt || more)
          energies_[static_cast<std::size_t>(head / shape.group())].push_back(rotated);
      }
    }
    if (over_stored) recall();
    for (int token = tokens - 1; token >= 0; token -= std::max(1, tokens / 9)) {
      for (int head = 0; head < shape.query_heads; ++head) {
        const int row = token * shape.query_heads + head;
        const auto query = turned(queries.data() + row * shape.head_dim, first + token);
        const std::vector<float> floats(query.begin(), query.end());
        const auto sight = reference_.attend(head, first + token, floats.data());
        const double error = relative_error(output.data() + row * shape.values(), sight.output);
        worst = std::max(worst, std::isnan(error) ? INFINITY : error);
      }
    }
    pass->commit(0);
    for (int head = 0; head < shape.heads; ++head) {
      reference_.keep(head, cache_.kept(0, head));
      if (prompt) choose(head);
      if (!more) seal(head);
      if (prompt) energies_[static_cast<std::size_t>(head)].clear();
    }
  }

  KVCache<Policy, ThinK<Inner>>& cache() { return cache_; }
  const std::set<int>& dropped(int head) const { return dropped_[static_cast<std::size_t>(head)]; }
  bool is_sealed(int head, int position) const {
    return sealed_[static_cast<std::size_t>(head)].contains(position);
  }
  ReferenceLayer& reference() { return reference_; }

  bool over_stored = false;  ///< what the cache says that it holds is what is attended to
  double worst = 0.0;

 private:
  void recall() {
    const Shape& shape = setting_.shape;
    const auto tokens = reference_.kept(0).size();
    std::vector<float> keys(tokens * static_cast<std::size_t>(shape.heads * shape.head_dim));
    std::vector<float> values(tokens * static_cast<std::size_t>(shape.heads * shape.values()));
    cache_.export_dense(0, std::span(keys), std::span(values));
    for (int head = 0; head < shape.heads; ++head) {
      const float* key = keys.data() + head * shape.head_dim;
      const float* value = values.data() + head * shape.values();
      for (auto& token : reference_.kept(head)) {
        token.key.assign(key, key + shape.head_dim);
        token.value.assign(value, value + shape.values());
        key += shape.heads * shape.head_dim;
        value += shape.heads * shape.values();
      }
    }
  }

  Rope rope() const { return Rope::plain(setting_.shape.head_dim, 10000.0, Pairing::halves); }
  CacheOptions options() const {
    if (!setting_.rotates) return {};
    return {.positions = Positions::unrotated, .rope = rope()};
  }
  std::vector<double> turned(const float* vector, int position) const {
    std::vector<double> numbers(vector, vector + setting_.shape.head_dim);
    if (setting_.rotates) turns_.turn(numbers, position);
    return numbers;
  }
  /// The weakest channels, or pairs of channels, one after the other.
  void choose(int head) {
    auto& dropped = dropped_[static_cast<std::size_t>(head)];
    if (chosen_ > head) return;
    chosen_ = head + 1;
    const auto& queries = energies_[static_cast<std::size_t>(head)];
    const int dim = setting_.shape.head_dim;
    const std::size_t asked = std::min(
        queries.size(), static_cast<std::size_t>(setting_.window * setting_.shape.group()));
    std::vector<double> scores;
    for (int channel = 0; channel < dim; ++channel) {
      const auto at = static_cast<std::size_t>(channel);
      double of_queries = 0.0;
      double of_keys = 0.0;
      for (std::size_t query = queries.size() - asked; query < queries.size(); ++query)
        of_queries += queries[query][at] * queries[query][at];
      for (const auto& token : reference_.kept(head)) of_keys += token.key[at] * token.key[at];
      scores.push_back(of_queries * of_keys);
    }
    const int most = static_cast<int>(static_cast<float>(dim) * setting_.prune) / 8 * 8;
    while (static_cast<int>(dropped.size()) < most) {
      std::set<int> weakest;
      double least = INFINITY;
      for (int channel = 0; channel < dim; ++channel) {
        std::set<int> together{channel};
        if (setting_.pairs == ChannelPairs::halves) together.insert((channel + dim / 2) % dim);
        if (setting_.pairs == ChannelPairs::interleaved) together.insert(channel ^ 1);
        double score = 0.0;
        for (const int one : together) score += scores[static_cast<std::size_t>(one)];
        if (dropped.contains(channel) || score >= least) continue;
        least = score;
        weakest = together;
      }
      dropped.merge(weakest);
    }
  }
  void seal(int head) {
    if (chosen_ <= head) return;
    auto& sealed = sealed_[static_cast<std::size_t>(head)];
    auto& tokens = reference_.kept(head);
    const auto waiting = std::count_if(tokens.begin(), tokens.end(), [&](const auto& token) {
      return !sealed.contains(token.position);
    });
    auto left = (waiting - setting_.recent) / 32 * 32;
    for (auto& token : tokens) {
      if (left <= 0) break;
      if (!sealed.insert(token.position).second) continue;
      for (const int channel : dropped(head)) token.key[static_cast<std::size_t>(channel)] = 0.0;
      --left;
    }
  }

  PrunedSetting setting_;
  BlockPool pool_;
  KVCache<Policy, ThinK<Inner>> cache_;
  ReferenceLayer reference_;
  ReferenceRope turns_;
  Random random_{11};
  std::vector<float> loud_;
  std::vector<std::set<int>> sealed_;                       ///< [heads] positions
  std::vector<std::set<int>> dropped_;                      ///< [heads] channels
  std::vector<std::vector<std::vector<double>>> energies_;  ///< [heads] the prompt's queries
  int chosen_ = 0;                                          ///< heads
};

}  // namespace kvast::test
