// SPDX-License-Identifier: Apache-2.0
// How well a compressed cache predicts a text: nats per token, and divergence from the full cache.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/quality/model.h"

namespace kvast::quality {

/// Log-probabilities of the full f32 cache: [scored, vocabulary].
struct Reference {
  std::vector<float> log_probabilities;
  std::vector<double> nll;
};

struct NllOptions {
  std::string policy = "full";
  std::string storage = "f16";
  int context = 1024;      ///< tokens prefilled
  int continuation = 128;  ///< tokens scored
  int chunk = 0;           ///< prefill in chunks of this many tokens; 0: at once
};

struct NllResult {
  double nll = 0;         ///< nats per scored token
  double kl = 0;          ///< mean KL(full f32 || this), nats
  double top1_agree = 0;  ///< share of positions with the full cache's likeliest token
  int tokens = 0;         ///< scored
  double bytes_end = 0;
  double bytes_peak = 0;
  double bytes_full_f16 = 0;
  double kept_mean = 0;  ///< live tokens per head at the end
  double attend_ms = 0;  ///< median over decode steps, summed over layers
  double commit_ms = 0;
  double tokens_per_s = 0;  ///< decode steps
  double prefill_s = 0;
  std::string report;  ///< see AnyCache::report
};

/// Teacher forcing: tokens [0, context) are the prompt; the first scored token from its last
/// logits, each next one after feeding the one before. UsageError where `tokens` are too few.
Reference run_reference(Model& model, std::span<const int> tokens, const NllOptions& options);
NllResult run_nll(Model& model, std::span<const int> tokens, const NllOptions& options,
                  const Reference& reference);

/// The same from a cache that holds the prompt already, whose logits are at hand. `prefill_s` stays
/// 0.
NllResult score_continuation(Model& model, AnyCache& cache, std::span<const int> tokens,
                             const NllOptions& options, const Reference& reference);

/// log softmax in double of one row of logits.
void log_softmax(std::span<const float> logits, std::span<float> log_probabilities);

}  // namespace kvast::quality
