// SPDX-License-Identifier: Apache-2.0
// What a compressed cache still knows: questions whose answers stand in the context.
#pragma once

#include <string>
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

/// Whether the answer stands in 16 greedily generated tokens after `question`, asked of a fork of
/// `cache`.
bool ask(Model& model, AnyCache& cache, const RecallTask& task, std::string& generated);

/// One task from the start. `question_seen`: context and question are one prompt, so that the
/// policy knows what is asked; otherwise it acts after the context and the question is a second
/// prompt.
struct RecallResult {
  bool hit = false;
  std::string generated;
  double kept_mean = 0;
  double bytes_end = 0;
  int prompt = 0;
};
RecallResult run_recall(Model& model, const RecallTask& task, const std::string& policy,
                        const std::string& storage, bool question_seen, int chunk);

}  // namespace kvast::quality
