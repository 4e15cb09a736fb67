// SPDX-License-Identifier: Apache-2.0
// AnyCache over KVCache<Policy, Storage>, and the settings under which policies are tried.
#pragma once

#include <cmath>
#include <numeric>

#include "kvast/kvast.h"
#include "tests/calibrate/made_up.h"
#include "tests/laws/any_cache.h"
#include "tests/laws/model.h"

namespace kvast::test {

template <class Policy>
class CacheOf : public AnyCache {
 public:
  using Cache = KVCache<Policy, AnyStorage>;

  CacheOf(Cache cache, bool external) : cache_(std::move(cache)), external_(external) {}

  std::vector<float> run(int tokens, Phase phase) override {
    return run(tokens, phase, Sight::attention);
  }
  void run_on_ties(int tokens, Phase phase) override { (void)run(tokens, phase, Sight::ties); }
  void drop(int tokens, int layers, bool attends, Phase phase) override {
    auto pass = cache_.begin(options(tokens, phase));
    std::vector<float> outputs;
    for (int layer = 0; layer < layers; ++layer)
      step(*pass, layer, tokens, attends ? Sight::attention : Sight::none, outputs);
  }
  Kept kept() const override {
    Kept all(static_cast<std::size_t>(cache_.layers()));
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      for (int head = 0; head < cache_.shape(layer).heads; ++head)
        all[static_cast<std::size_t>(layer)].push_back(cache_.kept(layer, head));
    }
    return all;
  }
  std::vector<int> slots(int layer, int head) const override { return cache_.slots(layer, head); }
  int tokens(int layer, int head) const override { return cache_.tokens(layer, head); }
  int length() const override { return cache_.length(); }
  std::size_t bytes() const override { return cache_.bytes_in_use(); }
  Stats stats() const override { return cache_.stats(); }
  std::vector<float> exported() override {
    std::vector<float> all;
    for (int layer = 0; !external_ && layer < cache_.layers(); ++layer) {
      const Shape& shape = cache_.shape(layer);
      int most = 0;
      for (int head = 0; head < shape.heads; ++head)
        most = std::max(most, cache_.tokens(layer, head));
      const auto width = static_cast<std::size_t>(shape.heads * shape.head_dim);
      const auto value_width = static_cast<std::size_t>(shape.heads * shape.values());
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
  /// What a pass shows the policy.
  enum class Sight { none, attention, ties };

  PassOptions options(int tokens, Phase phase) {
    PassOptions options{.tokens = tokens,
                        .last_of_prompt = phase == Phase::prompt,
                        .more_of_prompt = phase == Phase::chunk};
    if (Policy::needs.token_kinds) {
      kinds_.clear();
      for (int token = 0; token < tokens; ++token)
        kinds_.push_back(kind_of(cache_.length() + token));
      options.kinds = kinds_;
    }
    return options;
  }
  std::vector<float> run(int tokens, Phase phase, Sight sight) {
    auto pass = cache_.begin(options(tokens, phase));
    if (!pass) throw std::runtime_error(pass.status().message());
    std::vector<float> outputs;
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      step(*pass, layer, tokens, sight, outputs);
      pass->commit(layer);
    }
    return outputs;
  }
  void step(typename Cache::Pass& pass, int layer, int tokens, Sight sight,
            std::vector<float>& outputs) {
    std::vector<int> positions(static_cast<std::size_t>(tokens));
    std::iota(positions.begin(), positions.end(), cache_.length());
    const Shape& shape = cache_.shape(layer);
    const auto keys = tensor(Kind::key, layer, positions, shape.heads, shape.head_dim);
    const auto values = tensor(Kind::value, layer, positions, shape.heads, shape.values());
    pass.append(layer, std::span(keys), std::span(values));
    if (sight == Sight::none) return;
    const auto queries = tensor(Kind::query, layer, positions, shape.query_heads, shape.head_dim);
    if (Policy::needs.attention && (external_ || sight == Sight::ties)) {
      show_weights(pass, layer, positions, sight, queries);
    } else if (!external_) {
      const std::size_t size =
          positions.size() * static_cast<std::size_t>(shape.query_heads * shape.values());
      const std::size_t before = outputs.size();
      outputs.resize(before + size);
      pass.attend(layer, std::span(queries), std::span(outputs).subspan(before));
    }
  }
  /// What an engine's own kernel would do, over keys that it finds by position.
  void show_weights(typename Cache::Pass& pass, int layer, const std::vector<int>& positions,
                    Sight sight, const std::vector<float>& queries) {
    const Shape& shape = cache_.shape(layer);
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
        float* to = weights.data() + row * width;
        if (sight == Sight::ties) {
          coarse_weights(query_head, positions[token], at, to);
        } else {
          softmax_weights(shape, layer, head, positions[token],
                          queries.data() + row * static_cast<std::size_t>(shape.head_dim), at, to);
        }
      }
    }
    pass.observe(layer, {weights.data(), static_cast<std::int64_t>(query_heads * width),
                         static_cast<std::int64_t>(width)});
  }

  Cache cache_;
  bool external_;
  std::vector<TokenKind> kinds_;
};

/// Made-up directions of each head, or of all heads; of keys as they are before rotation, or as
/// they meet queries.
inline std::shared_ptr<const Calibration> law_calibration(const Shape& shape, bool before_rope,
                                                          bool shared) {
  Calibration made = random_calibration(shape, shared);
  made.before_rope = before_rope;
  return std::make_shared<const Calibration>(std::move(made));
}

/// Keys of such storages reach the cache unrotated.
inline CacheOptions law_options(LawStorage storage, Executor executor) {
  CacheOptions options{.executor = executor};
  if (storage == LawStorage::eigen4 || storage == LawStorage::lorc) {
    options.positions = Positions::unrotated;
    options.rope = Rope::plain(16, 10000.0, Pairing::halves);
  }
  return options;
}

inline AnyStorage law_storage(LawStorage storage, const Shape& shape) {
  switch (storage) {
    case LawStorage::f32:
      return Dense<float>{};
    case LawStorage::f16:
      return Dense<half>{};
    case LawStorage::kivi4:
      return Kivi<4>{.residual = 16};
    case LawStorage::kivi2:
      return Kivi<2>{.residual = 16, .keep = {.tokens = 3}};
    case LawStorage::int8:
      return Int8{};
    case LawStorage::fp8:
      return Float8<E4M3>{};
    case LawStorage::turbo3:
      return TurboQuant<3>{};
    case LawStorage::bf16:
      return Dense<BF16>{};
    case LawStorage::kivi3:
      return Kivi<3>{.residual = 16};
    case LawStorage::kivi8:
      return Kivi<8>{.residual = 16};
    case LawStorage::kivi42:
      return Kivi<4, 2>{.residual = 16};
    case LawStorage::int4:
      return Int4{};
    case LawStorage::e5m2:
      return Float8<E5M2>{};
    case LawStorage::turbo2:
      return TurboQuant<2>{};
    case LawStorage::turbo4:
      return TurboQuant<4>{};
    case LawStorage::rotated2:
      return Rotated<Kivi<2>>{{.residual = 16}};
    case LawStorage::eigen:
      return EigenLowRank<Dense<half>>{
          {}, law_calibration(shape, false, false), {{8, 24}, {16, 8}}};
    case LawStorage::eigen4:
      return EigenLowRank<Kivi<4>>{
          {.residual = 16}, law_calibration(shape, true, true), {{8, 32}, {8, 24}}};
    case LawStorage::lorc:
      return LoRC<Dense<half>>{{}, law_calibration(shape, true, false), {{8, 40}, {8, 16}}};
    case LawStorage::think:
      return ThinK<Dense<half>>{{}, 0.5F, 16, 8};
    case LawStorage::think4:
      return ThinK<Kivi<4>>{{.residual = 16}, 0.5F, 20, 40, ChannelPairs::halves};
    case LawStorage::kept_layer:
      return Kivi<4>{.residual = 16, .keep = {.layers = LayerSet{}.add(1)}};
    default:
      return External{};
  }
}

template <class Case>
std::unique_ptr<AnyCache> make_cell(const Cell& cell, BlockPool& pool, Executor executor,
                                    Scramble scramble) {
  const auto policy = scramble_policy(Case::policy(), scramble);
  using Policy = std::remove_const_t<decltype(policy)>;
  return std::make_unique<CacheOf<Policy>>(
      KVCache<Policy, AnyStorage>(cell.shape(), policy, law_storage(cell.storage, cell.shape()),
                                  pool, law_options(cell.storage, executor)),
      cell.storage == LawStorage::external);
}

/// A translation unit's share: its policies with every storage and every group of query heads.
template <class... Cases>
std::vector<Cell> cells_of() {
  std::vector<Cell> cells;
  for (const LawStorage storage : kLawStorages) {
    for (const int group : kLawGroups)
      (cells.push_back({Cases::promise(), storage, make_cell<Cases>, group}), ...);
  }
  for (const auto& some :
       {std::span(kMoreLawStorages).subspan(0), std::span(kOtherLawStorages).subspan(0)}) {
    for (const LawStorage storage : some)
      (cells.push_back({Cases::promise(), storage, make_cell<Cases>, 3}), ...);
  }
  return cells;
}

}  // namespace kvast::test
