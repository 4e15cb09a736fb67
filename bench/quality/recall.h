// SPDX-License-Identifier: Apache-2.0
// What a compressed cache still knows: questions whose answers stand in the context.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/quality/model.h"

namespace kvast::quality {

struct RecallTask {
  std::string context;
  std::string question;
  std::string answer;
};

/// Lines of {"context", "question", "answer"}. UsageError names the line that is not one. Where
/// `context` is given, a line needs none and takes that.
std::vector<RecallTask> read_tasks(const std::string& file, const std::string& context = {});

/// Whether the answer stands in 16 greedily generated tokens after `question`, asked of `cache`,
/// which has its context and is of no other use then.
bool ask(Model& model, AnyCache& cache, const RecallTask& task, std::string& generated);

/// A fork for one question. Throws std::runtime_error where the pool is exhausted.
std::unique_ptr<AnyCache> fork_of(AnyCache& cache);

struct RecallResult {
  bool hit = false;
  std::string generated;
  double kept_mean = 0;
  double bytes_end = 0;
  int prompt = 0;
};

/// Tasks, one after the other, of one policy and storage. `question_seen`: context and question are
/// one prompt, so that the policy knows what is asked; otherwise it acts after the context and the
/// question is a second prompt, and tasks in a row with the same context read it once where the
/// cache can fork.
class Recall {
 public:
  Recall(Model& model, std::string policy, std::string storage, bool question_seen, int chunk)
      : model_(model),
        policy_(std::move(policy)),
        storage_(std::move(storage)),
        question_seen_(question_seen),
        chunk_(chunk) {}
  /// UsageError where context or question is empty.
  RecallResult run(const RecallTask& task);

 private:
  Model& model_;
  std::string policy_, storage_;
  bool question_seen_;
  int chunk_;
  std::vector<int> prompt_;  ///< what `cache_` holds
  std::unique_ptr<AnyCache> cache_;
};

}  // namespace kvast::quality
