// SPDX-License-Identifier: Apache-2.0
// What a policy costs a decode step: its weights, and rank + select + evict.
#pragma once

#include <cmath>
#include <string>

#include "bench/ops/filled_cache.h"
#include "bench/ops/policies/rows.h"

namespace kvast::bench {

constexpr double kTolerance = 1e-4;  // the reference reads the same stored numbers
constexpr int kShortest = 64;        // steps

/// `Full`, warmed up, with `tokens` tokens per head, and what its commit takes.
class Baseline {
 public:
  explicit Baseline(const Sizes& sizes) : filled_(shorter(sizes), Full{}, Dense<half>{}) {
    std::vector<double> commits;
    for (int step = 0; step < kWarmUp; ++step) commits.push_back(filled_.step().commit);
    commit_ = median(commits);
  }
  double error() { return filled_.error(); }
  double tokens() const { return filled_.tokens(); }
  double commit() const { return commit_; }
  double attend() { return filled_.step(false).attend; }

 private:
  static constexpr int kWarmUp = 16;
  static Sizes shorter(Sizes sizes) {
    sizes.tokens -= kWarmUp;
    return sizes;
  }
  FilledCache<Full, Dense<half>> filled_;
  double commit_ = 0;
};

/// Whether every head (every layer, where its heads share a budget) holds what it may, `grown`
/// tokens after the policy was last due.
template <class Cache>
bool within_budget(const Cache& cache, int grown) {
  using Policy = typename Cache::Policy;
  bool right = true;
  for (int layer = 0; layer < cache.layers(); ++layer) {
    const Budget budget = detail::budget_of(cache.policy(), {layer, cache.layers()});
    const int heads = cache.shape(layer).heads;
    int most = 0;
    int all = 0;
    for (int head = 0; head < heads; ++head) {
      most = std::max(most, cache.tokens(layer, head));
      all += cache.tokens(layer, head);
    }
    const int held = detail::allocates<Policy>() ? (all + heads - 1) / heads : most;
    right = right && (!budget.limited() || held <= budget.tokens + grown);
  }
  return right;
}

/// The mean step of a policy that acts every `period` steps. What each step of a period takes is a
/// median over the periods, so that a step during which the machine was busy elsewhere does not
/// count.
inline double amortised(const std::vector<double>& steps, int period) {
  double sum = 0;
  for (int phase = 0; phase < period; ++phase) {
    std::vector<double> here;
    for (auto at = static_cast<std::size_t>(phase); at < steps.size();
         at += static_cast<std::size_t>(period))
      here.push_back(steps[at]);
    sum += median(here);
  }
  return sum / period;
}

/// Decode steps under `policy`, after a prompt of `prompt` tokens, each in turn with one of Full
/// that holds `tokens` per head. Where the policy's cache holds another number, Full's time is
/// scaled by it. All times are per layer, shares are of Full's attend.
template <class Policy>
void cost(benchmark::State& state, Policy policy, int tokens, int prompt) {
  Sizes sizes{.tokens = tokens};
  sizes.layers = layers_for(sizes);
  Baseline full(sizes);
  sizes.tokens = prompt;
  FilledCache<Policy, Dense<half>> filled(sizes, policy, Dense<half>{});
  const When when = detail::when_of(policy);
  const bool only_at_prompts = when.kind == When::Kind::prompt;
  bool right = within_budget(filled.cache(), 0);
  std::vector<double> base, weights, commits;
  const std::int64_t evicted_before = filled.cache().stats().evicted;
  double steps = 0;
  for (auto _ : state) {
    (void)stream();  // or each of the two would find another part of itself in the cache
    const double without = full.attend();
    const double before = filled.tokens();
    (void)stream();
    const auto with = filled.step();
    const double scaled = without * before / full.tokens();
    base.push_back(scaled);
    weights.push_back(with.attend / scaled);
    commits.push_back(with.commit);
    state.SetIterationTime((with.attend + with.commit) / sizes.layers);
    ++steps;
    right = right && within_budget(filled.cache(), only_at_prompts ? static_cast<int>(steps) : 0);
  }
  const double error = std::max(full.error(), filled.error());
  if (!right) return state.SkipWithError("a head holds more than its budget");
  if (!(error <= kTolerance))
    return state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
  const double attend = median(base);  // without the policy
  const double of_weights = median(weights) - 1;
  const double of_policy = (amortised(commits, when.batch) - full.commit()) / attend;
  const double evicted = static_cast<double>(filled.cache().stats().evicted - evicted_before);
  if (detail::evicts<Policy>() && !only_at_prompts && evicted == 0)
    return state.SkipWithError("nothing was evicted, so there is nothing to be timed");
  const auto report = [&](const char* name, double number, double unit) {
    state.counters[name] = std::round(number / unit) * unit;
  };
  report("attend_ms", 1e3 * attend / sizes.layers, 1e-4);
  report("evicted", evicted / steps / sizes.layers / sizes.heads, 1e-2);  // per head and step
  report("weights_%", 100 * of_weights, 1e-2);
  report("policy_%", 100 * of_policy, 1e-2);
  report("sum_%", 100 * (of_weights + of_policy), 1e-2);
  report("prompt_ms", prompt > tokens ? 1e3 * filled.prompt_commit() : 0.0, 1e-3);
}

/// Registers one row: `make(tokens)` is the policy, the prompt has `prompt * tokens` tokens.
template <class Make>
void add_row(const std::string& name, Make make, double prompt = 1.0) {
  const When when = detail::when_of(make(4096));
  const auto run = [make, prompt](benchmark::State& state) {
    const int tokens = static_cast<int>(state.range(0));
    cost(state, make(tokens), tokens, static_cast<int>(prompt * tokens));
  };
  benchmark::RegisterBenchmark(("policies/" + name).c_str(), run)
      ->ArgName("T")
      ->Arg(4096)
      ->Arg(16384)
      ->Iterations(std::max(kShortest, when.batch > 1 ? 3 * when.batch : 1))
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

/// Adds the policy as it acts by habit and, where that can be chosen, acting on every 64th step.
/// Policies that replay are left out there: they take their vote anew in every pass.
template <class Make>
void add(const std::string& name, Make make, double prompt = 1.0) {
  using Policy = decltype(make(0));
  add_row(name, make, prompt);
  if constexpr (!detail::replays<Policy>() &&
                requires(Policy policy) { policy.when = When::full(64); }) {
    const auto lazily = [make](int tokens) {
      Policy policy = make(tokens);
      policy.when = When::full(64);
      return policy;
    };
    add_row(name + "/every:64", lazily, prompt);
  }
}

}  // namespace kvast::bench
