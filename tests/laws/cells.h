// SPDX-License-Identifier: Apache-2.0
// AnyCache over KVCache<Policy, Storage>, and the settings under which policies are tried.
#pragma once

#include <cmath>
#include <numeric>

#include "kvast/kvast.h"
#include "tests/laws/any_cache.h"
#include "tests/laws/model.h"

namespace kvast::test {

template <class Policy>
class CacheOf : public AnyCache {
 public:
  using Cache = KVCache<Policy, AnyStorage>;

  CacheOf(Cache cache, bool external) : cache_(std::move(cache)), external_(external) {}

  std::vector<float> run(int tokens, Phase phase) override {
    auto pass = cache_.begin(options(tokens, phase));
    if (!pass) throw std::runtime_error(pass.status().message());
    std::vector<float> outputs;
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      step(*pass, layer, tokens, true, outputs);
      pass->commit(layer);
    }
    return outputs;
  }
  void drop(int tokens, int layers, bool attends) override {
    auto pass = cache_.begin(options(tokens, Phase::decode));
    std::vector<float> outputs;
    for (int layer = 0; layer < layers; ++layer) step(*pass, layer, tokens, attends, outputs);
  }
  Kept kept() const override {
    Kept all(static_cast<std::size_t>(cache_.layers()));
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      for (int head = 0; head < kLawShape.heads; ++head)
        all[static_cast<std::size_t>(layer)].push_back(cache_.kept(layer, head));
    }
    return all;
  }
  int tokens(int layer, int head) const override { return cache_.tokens(layer, head); }
  int length() const override { return cache_.length(); }
  std::size_t bytes() const override { return cache_.bytes_in_use(); }
  Stats stats() const override { return cache_.stats(); }
  std::vector<float> exported() override {
    std::vector<float> all;
    for (int layer = 0; !external_ && layer < cache_.layers(); ++layer) {
      int most = 0;
      for (int head = 0; head < kLawShape.heads; ++head)
        most = std::max(most, cache_.tokens(layer, head));
      const auto width = static_cast<std::size_t>(kLawShape.heads * kLawShape.head_dim);
      const auto value_width = static_cast<std::size_t>(kLawShape.heads * kLawShape.values());
      std::vector<float> keys(static_cast<std::size_t>(most) * width);
      std::vector<float> values(static_cast<std::size_t>(most) * value_width);
      cache_.export_dense(layer, keys.data(), values.data());
      all.insert(all.end(), keys.begin(), keys.end());
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
  std::unique_ptr<AnyCache> fork() override {
    auto copy = cache_.fork();
    if (!copy) throw std::runtime_error(copy.status().message());
    return std::make_unique<CacheOf>(std::move(*copy), external_);
  }
  void clear() override { cache_.clear(); }

 private:
  static PassOptions options(int tokens, Phase phase) {
    return {.tokens = tokens,
            .last_of_prompt = phase == Phase::prompt,
            .more_of_prompt = phase == Phase::chunk};
  }
  void step(typename Cache::Pass& pass, int layer, int tokens, bool attends,
            std::vector<float>& outputs) {
    std::vector<int> positions(static_cast<std::size_t>(tokens));
    std::iota(positions.begin(), positions.end(), cache_.length());
    const Shape& shape = kLawShape;
    const auto keys = tensor(Kind::key, layer, positions, shape.heads, shape.head_dim);
    const auto values = tensor(Kind::value, layer, positions, shape.heads, shape.values());
    const auto queries = tensor(Kind::query, layer, positions, shape.query_heads, shape.head_dim);
    pass.append(layer, std::span(keys), std::span(values));
    if (!attends) return;
    if (external_) {
      if (Policy::needs.attention) show_weights(pass, layer, positions, queries);
    } else {
      const std::size_t size =
          positions.size() * static_cast<std::size_t>(shape.query_heads * shape.values());
      const std::size_t before = outputs.size();
      outputs.resize(before + size);
      pass.attend(layer, std::span(queries), std::span(outputs).subspan(before));
    }
  }
  /// What an engine's own kernel would do, over keys that it finds by position.
  void show_weights(typename Cache::Pass& pass, int layer, const std::vector<int>& positions,
                    const std::vector<float>& queries) {
    const Shape& shape = kLawShape;
    std::size_t width = 0;
    std::vector<std::vector<int>> slots;
    for (int head = 0; head < shape.heads; ++head) {
      slots.push_back(cache_.slots(layer, head));
      width = std::max(width, slots.back().size());
    }
    const auto query_heads = static_cast<std::size_t>(shape.query_heads);
    std::vector<float> weights(positions.size() * query_heads * width, 0.0F);
    for (int query_head = 0; query_head < shape.query_heads; ++query_head) {
      const int head = query_head / shape.group();
      const std::vector<int>& at = slots[static_cast<std::size_t>(head)];
      for (std::size_t token = 0; token < positions.size(); ++token) {
        const std::size_t row = token * query_heads + static_cast<std::size_t>(query_head);
        const float* query = queries.data() + row * static_cast<std::size_t>(shape.head_dim);
        double sum = 0.0;
        std::vector<double> powers(at.size(), 0.0);
        for (std::size_t slot = 0; slot < at.size(); ++slot) {
          if (at[slot] < 0 || at[slot] > positions[token]) continue;
          const float* key = key_of(shape, layer, head, at[slot]);
          double logit = 0.0;
          for (int dim = 0; dim < shape.head_dim; ++dim)
            logit += static_cast<double>(query[dim] * key[dim]);
          sum += powers[slot] = std::exp(logit / std::sqrt(shape.head_dim));
        }
        for (std::size_t slot = 0; slot < at.size(); ++slot)
          weights[row * width + slot] = static_cast<float>(powers[slot] / sum);
      }
    }
    pass.observe(layer, {weights.data(), static_cast<std::int64_t>(query_heads * width),
                         static_cast<std::int64_t>(width)});
  }

  Cache cache_;
  bool external_;
};

inline AnyStorage law_storage(LawStorage storage) {
  switch (storage) {
    case LawStorage::f32:
      return Dense<float>{};
    case LawStorage::f16:
      return Dense<half>{};
    case LawStorage::kivi4:
      return Kivi<4>{.residual = 16};
    default:
      return External{};
  }
}

template <class Case>
std::unique_ptr<AnyCache> make_cell(LawStorage storage, BlockPool& pool, Executor executor) {
  using Policy = decltype(Case::policy());
  return std::make_unique<CacheOf<Policy>>(
      KVCache<Policy, AnyStorage>(kLawShape, Case::policy(), law_storage(storage), pool,
                                  {.executor = executor}),
      storage == LawStorage::external);
}

/// A translation unit's share: its policies with every storage.
template <class... Cases>
std::vector<Cell> cells_of() {
  std::vector<Cell> cells;
  for (const LawStorage storage : kLawStorages)
    (cells.push_back({Cases::promise(), storage, make_cell<Cases>}), ...);
  return cells;
}

}  // namespace kvast::test
