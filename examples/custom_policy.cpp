// SPDX-License-Identifier: Apache-2.0
// A policy of your own, outside of the library: one struct, and every storage works with it.
#include <kvast/kvast.h>

#include <cmath>
#include <cstdio>
#include <vector>

/// Keeps the tokens that had a burst of attention not long ago: mass that halves every `half_life`
/// steps. State: 8 bytes per token and head.
struct Fading {
  int tokens_kept = 64;  ///< budget per head
  int recent = 16;       ///< newest tokens, always kept
  int half_life = 32;    ///< steps
  static constexpr kvast::Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;  ///< as of step `last`
    int last = 0;
  };

  /// One query's attention to one token.
  KVAST_HD void observe(State& state, kvast::Attention seen) const {
    state.mass = faded(state, seen.step) + seen.weight;
    state.last = seen.step;
  }
  /// Higher stays; kPin is never evicted.
  KVAST_HD float rank(kvast::Token token, State state) const {
    return token.age < recent ? kvast::kPin : faded(state, token.position + token.age);
  }
  kvast::Budget budget(kvast::Layer) const { return kvast::tokens(tokens_kept); }
  /// Refuses impossible settings when a cache is made.
  void validate(kvast::Caller caller) const {
    kvast::require(half_life >= 1, caller, "Fading.half_life is ", half_life, ", must be positive");
  }

 private:
  KVAST_HD float faded(State state, int step) const {
    return state.mass *
           std::exp2(-static_cast<float>(step - state.last) / static_cast<float>(half_life));
  }
};
static_assert(kvast::check_policy<Fading>());

int main() {
  const kvast::Shape shape{.head_dim = 64};
  kvast::BlockPool pool;
  kvast::KVCache<Fading, kvast::Dense<kvast::half>> cache(shape, Fading{}, {}, pool);
  std::vector<float> keys(64), values(64, 1.0F), queries(64), output(64);
  for (int token = 0; token < 500; ++token) {
    const auto topic = static_cast<std::size_t>(token / 100);  // five topics, one after the other
    keys.assign(64, 0.0F);
    keys[topic] = token % 10 == 0 ? 12.0F : 0.0F;  // each has a few tokens that matter
    queries.assign(64, 0.0F);
    queries[topic] = 4.0F;
    auto pass = cache.begin({});
    if (!pass) return 1;
    pass->append(0, keys.data(), values.data());
    pass->attend(0, queries.data(), output.data());
    pass->commit(0);
  }
  int of_last_topic = 0;
  for (const int position : cache.kept(0, 0)) of_last_topic += position >= 400 ? 1 : 0;
  std::printf("%d of %d tokens kept, %d of them from the last topic\n", cache.tokens(0, 0),
              cache.length(), of_last_topic);
  return cache.tokens(0, 0) == 64 && of_last_topic == 25 ? 0 : 1;
}
