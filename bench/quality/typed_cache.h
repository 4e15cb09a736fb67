// SPDX-License-Identifier: Apache-2.0
// AnyCache around KVCache<Policy, AnyStorage>, and the row that names a policy. Only the
// policies_*.cpp include it.
#pragma once

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

#include "bench/quality/any_cache.h"
#include "bench/quality/policies.h"
#include "kvast/kvast.h"

namespace kvast::quality {

template <class Policy>
class TypedCache final : public AnyCache {
 public:
  using Cache = KVCache<Policy, AnyStorage>;

  TypedCache(Cache cache, bool compacted) : cache_(std::move(cache)), compacted_(compacted) {}

  Status begin(const PassOptions& options) override {
    auto pass = cache_.begin(options);
    if (!pass) return pass.status();
    pass_.emplace(std::move(*pass));
    return {};
  }
  void append(int layer, const float* keys, const float* values) override {
    pass_->append(layer, keys, values);
    peak_ = std::max(peak_, cache_.bytes_in_use());
  }
  void attend(int layer, const float* queries, float* output) override {
    pass_->attend(layer, queries, output);
  }
  void commit(int layer) override {
    pass_->commit(layer);
    peak_ = std::max(peak_, cache_.bytes_in_use());
  }
  std::unique_ptr<AnyCache> fork() override {
    pass_.reset();
    auto copy = cache_.fork();
    if (!copy) return nullptr;
    return std::make_unique<TypedCache>(std::move(*copy), compacted_);
  }
  bool wants_unrotated() const override { return compacted_; }
  int length() const override { return cache_.length(); }
  std::size_t bytes_in_use() const override { return cache_.bytes_in_use(); }
  std::size_t bytes_peak() const override { return peak_; }
  double kept_mean() const override {
    double tokens = 0;
    int heads = 0;
    for (int layer = 0; layer < cache_.layers(); ++layer) {
      for (int head = 0; head < cache_.shape(layer).heads; ++head, ++heads)
        tokens += cache_.tokens(layer, head);
    }
    return tokens / heads;
  }
  Stats stats() const override { return cache_.stats(); }
  std::string report() const override {
    std::string text;
    if constexpr (std::is_same_v<Policy, FastGen>) {
      constexpr const char* kNames[] = {"special", "punctuation", "frequent", "local", "full"};
      int counts[5] = {};
      for (int layer = 0; layer < cache_.layers(); ++layer) {
        for (int head = 0; head < cache_.shape(layer).heads; ++head)
          ++counts[static_cast<int>(cache_.choice(layer, head).rule)];
      }
      for (int rule = 0; rule < 5; ++rule)
        text.append(rule > 0 ? " " : "")
            .append(kNames[rule])
            .append("=")
            .append(std::to_string(counts[rule]));
    }
    return text;
  }

 private:
  Cache cache_;
  std::optional<typename Cache::Pass> pass_;
  bool compacted_;
  std::size_t peak_ = 0;
};

/// The keys that most policies share, where this one has them.
template <class Policy>
void read_common(Spec& spec, int prompt, Policy& policy) {
  if constexpr (requires { policy.tokens_kept; })
    policy.tokens_kept = spec.tokens("budget", policy.tokens_kept, prompt);
  if constexpr (requires { policy.sinks; })
    policy.sinks = spec.tokens("sinks", policy.sinks, prompt);
  if constexpr (requires { policy.window; })
    policy.window = spec.tokens("window", policy.window, prompt);
  if constexpr (requires { policy.recent; })
    policy.recent = spec.tokens("recent", policy.recent, prompt);
  if constexpr (requires { policy.reduce; }) {
    const int rule =
        spec.choice("reduce", {"mean", "sum", "max", "any"}, static_cast<int>(policy.reduce));
    policy.reduce = rule == 3 ? Reduce::max : static_cast<Reduce>(rule);  // over a threshold "any"
  }
  if constexpr (requires { policy.when = When{}; }) {
    policy.when = spec.when(policy.when);
  } else if constexpr (requires { policy.when; }) {
    (void)spec.choice("when", {"prompt"}, 0);  // it acts at no other time
  }
}

/// The policies that have no other keys.
template <class Policy>
Policy read_plain(Spec& spec, int prompt) {
  Policy policy;
  read_common(spec, prompt, policy);
  return policy;
}

/// A row of a policy table: Read(Spec&, prompt tokens) gives the policy.
template <auto Read>
constexpr PolicyName policy_row(const char* name) {
  return {name, [](Spec& spec, const AnyStorage* storage, const CacheSetup* setup) {
            std::unique_ptr<AnyCache> made;
            const auto policy = Read(spec, setup == nullptr ? 0 : setup->prompt_tokens);
            CacheOptions options;
            options.positions =
                static_cast<Positions>(spec.choice("positions", {"original", "compacted"}, 0));
            if (setup == nullptr) return made;
            spec.finish();
            const bool compacted = options.positions == Positions::compacted;
            options.executor = setup->executor;
            using Policy = std::remove_const_t<decltype(policy)>;
            if (compacted || Policy::needs.query_moments) options.rope = setup->rope;
            made = std::make_unique<TypedCache<Policy>>(
                KVCache<Policy, AnyStorage>(setup->shape, policy, *storage, *setup->pool, options),
                compacted);
            return made;
          }};
}

}  // namespace kvast::quality
