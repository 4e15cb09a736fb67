// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/demo.h"

#include <unistd.h>
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bench/quality/nll.h"
#include "bench/quality/recall.h"

namespace kvast::quality {

namespace {

struct Row {
  const char* policy;
  const char* storage;
};
constexpr Row kRows[] = {
    {"full", "f32"},
    {"full", "f16"},
    {"full", "kivi:bits=4"},
    {"snapkv:budget=0.25", "f16"},
    {"snapkv:budget=0.25", "kivi:bits=4"},
    {"h2o:budget=0.25", "f16"},
    {"tova:budget=0.25", "f16"},
    {"corm", "f16"},
    {"l2norm:budget=0.25,when=prompt", "f16"},
    {"streaming:budget=0.25", "f16"},
};
constexpr int kRowCount = static_cast<int>(std::size(kRows));

/// Overwrites itself on a terminal; elsewhere a line per step.
void progress(int row, const Row& what, const char* doing) {
  const bool terminal = isatty(STDERR_FILENO) == 1;
  constexpr int kWidth = 20;
  char bar[kWidth + 1] = {};
  for (int at = 0; at < kWidth; ++at) bar[at] = at < row * kWidth / kRowCount ? '#' : '.';
  std::fprintf(stderr, "%s[%s] %d/%d %s, %s: %s%s", terminal ? "\r\033[K" : "", bar, row + 1,
               kRowCount, what.policy, what.storage, doing, terminal ? "" : "\n");
}

/// Every n-th task, so that at most `most` are left and the whole text is asked about.
std::vector<RecallTask> spread(const std::vector<RecallTask>& all, int most) {
  std::vector<RecallTask> some;
  const int count = std::min(most, static_cast<int>(all.size()));
  for (int at = 0; at < count; ++at) {
    some.push_back(
        all[static_cast<std::size_t>(at) * all.size() / static_cast<std::size_t>(count)]);
  }
  return some;
}

}  // namespace

void run_demo(Model& model, const DemoOptions& options) {
  const std::vector<int> tokens = model.tokenizer().encode(read_text(options.text));
  NllOptions nll{.context = options.context, .continuation = options.continuation};
  progress(0, {"full", "f32"}, "reference");
  const Reference reference = run_reference(model, tokens, nll);
  std::vector<RecallTask> tasks;
  if (!options.questions.empty()) {
    tasks = spread(read_tasks(options.questions, " "), options.most_questions);
  }
  std::printf("%d tokens of context, %d scored, %zu questions asked of the compressed context\n\n",
              options.context, options.continuation, tasks.size());
  std::printf("%-31s %-12s %8s %9s %7s %8s %7s %9s %10s %7s\n", "policy", "storage", "kept", "MiB",
              "of f16", "KL nats", "ppl", "answered", "attend ms", "tok/s");
  for (int index = 0; index < kRowCount; ++index) {
    const Row& row = kRows[index];
    nll.policy = row.policy;
    nll.storage = row.storage;
    progress(index, row, "prompt");
    const auto filled = [&] {
      auto fresh = model.cache(row.policy, row.storage, options.context);
      feed_prompt(model, *fresh,
                  std::span(tokens).first(static_cast<std::size_t>(options.context)));
      return fresh;
    };
    const auto cache = filled();
    const auto asked = cache->forks() ? fork_of(*cache) : nullptr;
    progress(index, row, "continuation");
    const NllResult result = score_continuation(model, *cache, tokens, nll, reference);
    int hits = 0;
    for (std::size_t task = 0; task < tasks.size(); ++task) {
      progress(index, row, ("question " + std::to_string(task + 1)).c_str());
      std::string generated;
      const auto one = asked != nullptr ? fork_of(*asked) : filled();
      if (ask(model, *one, tasks[task], generated)) ++hits;
    }
    std::fprintf(stderr, isatty(STDERR_FILENO) == 1 ? "\r\033[K" : "");
    std::printf("%-31s %-12s %8.1f %9.2f %7.3f %8.4f %7.2f %6d/%-2zu %10.2f %7.1f\n", row.policy,
                row.storage, result.kept_mean, result.bytes_end / (1 << 20),
                result.bytes_end / result.bytes_full_f16, result.kl, std::exp(result.nll), hits,
                tasks.size(), result.attend_ms, result.tokens_per_s);
    std::fflush(stdout);
  }
}

}  // namespace kvast::quality
