// SPDX-License-Identifier: Apache-2.0
// AnyCache around KVCache<Policy, AnyStorage>, and the row that names a policy. Only the
// policies_*.cpp include it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>

#include "bench/quality/any_cache.h"
#include "bench/quality/on_device.h"
#include "bench/quality/policies.h"
#include "bench/quality/storages.h"
#include "kvast/kvast.h"

namespace kvast::quality {

/// How many heads have which rule, where a policy chooses one for each.
class RuleCounts {
 public:
  void add(FastGen::Rule rule) {
    ++counts_[static_cast<std::size_t>(rule)];
    any_ = true;
  }
  /// Empty where no head has one.
  std::string text() const {
    constexpr const char* kNames[] = {"special", "punctuation", "frequent", "local", "full"};
    std::string text;
    for (std::size_t rule = 0; any_ && rule < counts_.size(); ++rule)
      text.append(rule > 0 ? " " : "")
          .append(kNames[rule])
          .append("=")
          .append(std::to_string(counts_[rule]));
    return text;
  }

 private:
  std::array<int, 5> counts_{};
  bool any_ = false;
};

template <class Policy>
class TypedCache final : public AnyCache {
 public:
  using Cache = KVCache<Policy, AnyStorage>;

  TypedCache(Cache cache, bool unrotated) : cache_(std::move(cache)), unrotated_(unrotated) {}

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
    return std::make_unique<TypedCache>(std::move(*copy), unrotated_);
  }
  bool wants_unrotated() const override { return unrotated_; }
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
  std::vector<int> kept(int layer, int head) const override { return cache_.kept(layer, head); }
  std::string report() const override {
    RuleCounts counts;
    if constexpr (std::is_same_v<Policy, FastGen>) {
      for (int layer = 0; layer < cache_.layers(); ++layer) {
        for (int head = 0; head < cache_.shape(layer).heads; ++head)
          counts.add(cache_.choice(layer, head).rule);
      }
    }
    return counts.text();
  }
  Cache& cache() { return cache_; }

 private:
  Cache cache_;
  std::optional<typename Cache::Pass> pass_;
  bool unrotated_;
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

/// The tokens that `bytes` allow a policy, where it has a budget: bytes in all, or below 1 a share
/// of the full f16 cache.
template <class Policy>
int tokens_of_bytes(const Spec& spec, const Policy& policy, double bytes, const AnyStorage& storage,
                    const CacheSetup& setup) {
  if (spec.has("budget") || !spec.asked("budget"))
    throw SpecError("SPEC '" + spec.name() + "': bytes choose the budget, which " +
                    (spec.has("budget") ? "is given as well" : "it does not have"));
  const Shape& shape = setup.shape;
  const int longest = setup.prompt_tokens + setup.decoded_tokens;
  const double full =
      2.0 * shape.layers * shape.heads * (shape.head_dim + shape.values()) * longest;
  const double total = bytes < 1.0 ? bytes * full : bytes;
  if (!(total >= 1.0 && total < 1e15))
    throw SpecError("SPEC '" + spec.name() + "': bytes must be positive, or a share below 1");
  const int tokens = tokens_within(
      {.total = static_cast<std::size_t>(total), .longest_prompt = std::max(longest, 1)}, shape,
      policy, storage, longest)[0];
  const bool grows = detail::when_of(policy).kind == When::Kind::prompt;
  const int kept = grows ? tokens - setup.decoded_tokens : tokens;
  if (kept <= 0)
    throw SpecError("SPEC '" + spec.name() + "': " + std::to_string(std::llround(total)) +
                    " bytes leave no token of the prompt to a head of this storage");
  return kept;
}

template <class Policy>
std::unique_ptr<AnyCache> made_on_device(const Policy& policy, const AnyStorage& storage,
                                         const CacheSetup& setup, const CacheOptions& options) {
  if constexpr (kRunsOnDevice<Policy>) {
    return setup.device->make(policy, {.storage = device_storage(storage, setup.shape),
                                       .shape = setup.shape,
                                       .positions = options.positions,
                                       .rope = options.rope});
  } else {
    throw OffDevice(false, why_not_on_device<Policy>());
  }
}

/// A row of a policy table: Read(Spec&, prompt tokens) gives the policy.
template <auto Read>
constexpr PolicyName policy_row(const char* name) {
  return {name, [](Spec& spec, const AnyStorage* storage, const CacheSetup* setup) {
            std::unique_ptr<AnyCache> made;
            const int prompt = setup == nullptr ? 0 : setup->prompt_tokens;
            const double bytes = spec.optional_real("bytes");
            if (setup != nullptr && spec.has("bytes"))
              spec.give("budget", std::to_string(tokens_of_bytes(spec, Read(spec, prompt), bytes,
                                                                 *storage, *setup)));
            const auto policy = Read(spec, prompt);
            CacheOptions options;
            const bool given = spec.has("positions");
            options.positions = static_cast<Positions>(
                spec.choice("positions", {"original", "compacted", "unrotated"}, 0));
            if (setup == nullptr) return made;
            spec.finish();
            if (!given && wants_unrotated(*storage, setup->shape))
              options.positions = Positions::unrotated;
            const bool unrotated = options.positions != Positions::original;
            options.executor = setup->executor;
            using Policy = std::remove_const_t<decltype(policy)>;
            if (unrotated || Policy::needs.query_moments) options.rope = setup->rope;
            if (setup->device != nullptr) return made_on_device(policy, *storage, *setup, options);
            made = std::make_unique<TypedCache<Policy>>(
                KVCache<Policy, AnyStorage>(setup->shape, policy, *storage, *setup->pool, options),
                unrotated);
            return made;
          }};
}

}  // namespace kvast::quality
