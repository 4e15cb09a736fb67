// SPDX-License-Identifier: Apache-2.0
// Keyformer: accumulated attention with noise, so that tokens that were unlucky early get a chance.
#pragma once

#include <cmath>

#include "kvast/core/check_policy.h"
#include "kvast/core/random.h"

namespace kvast {

/// Keeps the tokens with the largest sum of softmax((logit + Gumbel noise) / tau) over the queries
/// that saw them, and the newest ones. tau rises from `tau_begin` in the prompt to `tau_end` after
/// `steps` generated tokens. Ref: Keyformer, arXiv:2403.09054, §3.3, Algorithm 1.   State: 4 bytes
/// per token and head. The noise depends on (seed, layer, kv head, query, key) alone, so a run can
/// be repeated on any number of threads; of a group's weights the reduced one has it. The authors
/// keep 60 % of the prompt, 30 % of that for their recency. Costs a second look at each row, for
/// the sum that it is divided by.
struct Keyformer {
  int tokens_kept = 512;  ///< budget per head, the newest included
  int recent = 154;       ///< newest tokens, always kept
  float tau_begin = 1.0F;
  float tau_end = 2.0F;
  int steps = 512;    ///< generated tokens until tau_end is reached; the authors' max_new_tokens
  bool noise = true;  ///< without it and with tau 1, H2O
  std::uint64_t seed = 1;
  When when = When::step();
  Reduce reduce = Reduce::mean;
  static constexpr Needs needs{.attention = true};
  struct State {
    float mass = 0.0F;
  };

  /// exp((logit + noise) / tau), but for a factor that all of a row have.
  KVAST_HD float weigh(Token t, Attention a) const {
    if (!(a.weight > 0.0F)) return 0.0F;
    const float logit = std::log(a.weight) + (noise ? gumbel(t, a.step) : 0.0F);
    return std::exp(logit / tau(a.generated));
  }
  KVAST_HD void observe(State& s, Attention a) const { s.mass += a.weight; }
  KVAST_HD float rank(Token t, State s) const { return t.age < recent ? kPin : s.mass; }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
  KVAST_HD Pins pins() const { return {.newest = recent}; }
  void validate(Caller caller) const {
    check_kept("Keyformer", tokens_kept, recent, caller);
    require(tau_begin >= 0.25F && tau_begin <= 100.0F, caller, "Keyformer.tau_begin is ", tau_begin,
            ", must lie in [0.25, 100]");
    require(tau_end >= 0.25F && tau_end <= 100.0F, caller, "Keyformer.tau_end is ", tau_end,
            ", must lie in [0.25, 100]");
    require(steps >= 1, caller, "Keyformer.steps is ", steps, ", must be at least 1");
  }

 private:
  KVAST_HD float tau(int generated) const {
    const int at = generated < steps ? generated : steps;
    return tau_begin + (tau_end - tau_begin) * static_cast<float>(at) / static_cast<float>(steps);
  }
  KVAST_HD float gumbel(Token t, int step) const {
    const std::uint32_t bits =
        mix_bits(seed, {static_cast<std::uint32_t>(t.layer), static_cast<std::uint32_t>(t.head),
                        static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(t.position)});
    const float uniform = (static_cast<float>(bits >> 9U) + 0.5F) * 0x1p-23F;  // in (0, 1)
    return -std::log(-std::log(uniform));
  }
};
static_assert(check_policy<Keyformer>());

}  // namespace kvast
