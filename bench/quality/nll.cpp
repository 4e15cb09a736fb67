// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/nll.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace kvast::quality {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> numbers) {
  if (numbers.empty()) return 0;
  const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
  std::nth_element(numbers.begin(), middle, numbers.end());
  return *middle;
}

void check_length(std::span<const int> tokens, const NllOptions& options) {
  const std::size_t needed =
      static_cast<std::size_t>(options.context) + static_cast<std::size_t>(options.continuation);
  if (tokens.size() < needed) {
    throw UsageError("the text has " + std::to_string(tokens.size()) +
                     " tokens, context + continuation need " + std::to_string(needed));
  }
}

}  // namespace

void log_softmax(std::span<const float> logits, std::span<float> log_probabilities) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - most);
  const double norm = most + std::log(sum);
  for (std::size_t at = 0; at < logits.size(); ++at)
    log_probabilities[at] = static_cast<float>(static_cast<double>(logits[at]) - norm);
}

Reference run_reference(Model& model, std::span<const int> tokens, const NllOptions& options) {
  check_length(tokens, options);
  const auto cache = model.cache("full", "f32", options.context);
  feed_prompt(model, *cache, tokens.first(static_cast<std::size_t>(options.context)));
  const std::size_t vocabulary = model.llama().logits().size();
  Reference reference;
  reference.log_probabilities.resize(static_cast<std::size_t>(options.continuation) * vocabulary);
  for (int scored = 0; scored < options.continuation; ++scored) {
    const int token = tokens[static_cast<std::size_t>(options.context + scored)];
    const std::span row(
        reference.log_probabilities.data() + static_cast<std::size_t>(scored) * vocabulary,
        vocabulary);
    log_softmax(model.llama().logits(), row);
    reference.nll.push_back(-static_cast<double>(row[static_cast<std::size_t>(token)]));
    if (scored + 1 < options.continuation) feed_token(model, *cache, token);
  }
  return reference;
}

NllResult run_nll(Model& model, std::span<const int> tokens, const NllOptions& options,
                  const Reference& reference) {
  check_length(tokens, options);
  const auto cache =
      model.cache(options.policy, options.storage, options.context, options.continuation);
  const Clock::time_point start = Clock::now();
  feed_prompt(model, *cache, tokens.first(static_cast<std::size_t>(options.context)),
              options.chunk);
  const double prefill = seconds_since(start);
  NllResult result = score_continuation(model, *cache, tokens, options, reference);
  result.prefill_s = prefill;
  return result;
}

NllResult score_continuation(Model& model, AnyCache& cache, std::span<const int> tokens,
                             const NllOptions& options, const Reference& reference) {
  NllResult result;
  std::vector<double> attend;
  std::vector<double> commit;
  const std::size_t vocabulary = model.llama().logits().size();
  std::vector<float> row(vocabulary);
  double decode_seconds = 0;
  for (int scored = 0; scored < options.continuation; ++scored) {
    const int token = tokens[static_cast<std::size_t>(options.context + scored)];
    log_softmax(model.llama().logits(), row);
    const float* full =
        reference.log_probabilities.data() + static_cast<std::size_t>(scored) * vocabulary;
    result.nll -= static_cast<double>(row[static_cast<std::size_t>(token)]);
    for (std::size_t at = 0; at < vocabulary; ++at) {
      result.kl += std::exp(static_cast<double>(full[at])) *
                   (static_cast<double>(full[at]) - static_cast<double>(row[at]));
    }
    const auto best = std::max_element(row.begin(), row.end()) - row.begin();
    const auto full_best = std::max_element(full, full + vocabulary) - full;
    result.top1_agree += best == full_best ? 1 : 0;
    if (scored + 1 == options.continuation) break;
    model.llama().reset_cache_time();
    const Clock::time_point start = Clock::now();
    feed_token(model, cache, token);
    decode_seconds += seconds_since(start);
    attend.push_back(model.llama().cache_time().attend * 1e3);
    commit.push_back(model.llama().cache_time().commit * 1e3);
  }
  result.nll /= options.continuation;
  result.kl /= options.continuation;
  result.top1_agree /= options.continuation;
  result.tokens = options.continuation;
  result.bytes_end = static_cast<double>(cache.bytes_in_use());
  result.bytes_peak = static_cast<double>(cache.bytes_peak());
  result.bytes_full_f16 = model.full_f16_bytes(cache.length());
  result.kept_mean = cache.kept_mean();
  result.report = cache.report();
  result.attend_ms = median(attend);
  result.commit_ms = median(commit);
  result.tokens_per_s = decode_seconds > 0 ? (options.continuation - 1) / decode_seconds : 0;
  return result;
}

}  // namespace kvast::quality
