// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/recall.h"

#include <nlohmann/json.hpp>
#include <sstream>

namespace kvast::quality {

namespace {
constexpr int kAnswerTokens = 16;
}

std::vector<RecallTask> read_tasks(const std::string& file, const std::string& context) {
  std::istringstream lines(read_text(file));
  std::vector<RecallTask> tasks;
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.empty()) continue;
    try {
      const auto json = nlohmann::json::parse(line);
      tasks.push_back({context.empty() ? json.at("context").get<std::string>() : context,
                       json.at("question").get<std::string>(),
                       json.at("answer").get<std::string>()});
      if (tasks.back().answer.empty())
        throw UsageError(file + ", line " + std::to_string(number) + ": the answer is empty");
    } catch (const nlohmann::json::exception& error) {
      throw UsageError(file + ", line " + std::to_string(number) + ": " + error.what());
    }
  }
  if (tasks.empty()) throw UsageError(file + " holds no tasks");
  return tasks;
}

bool ask(Model& model, AnyCache& cache, const RecallTask& task, std::string& generated) {
  feed_prompt(model, cache, model.tokenizer().encode(task.question));
  generated = generate(model, cache, kAnswerTokens);
  return generated.find(task.answer) != std::string::npos;
}

std::unique_ptr<AnyCache> fork_of(AnyCache& cache) {
  auto fork = cache.fork();
  if (fork == nullptr) throw std::runtime_error("the pool is exhausted: no fork for a question");
  return fork;
}

RecallResult Recall::run(const RecallTask& task) {
  std::vector<int> prompt = model_.tokenizer().encode(task.context);
  const std::vector<int> question = model_.tokenizer().encode(task.question);
  if (prompt.empty() || (!question_seen_ && question.empty()))
    throw UsageError("a task's context or question is empty");
  if (question_seen_) prompt.insert(prompt.end(), question.begin(), question.end());
  const auto asked = [&]() -> std::unique_ptr<AnyCache> {
    if (question_seen_ || cache_ == nullptr || prompt != prompt_) {
      auto fresh = model_.cache(policy_, storage_, static_cast<int>(prompt.size()));
      feed_prompt(model_, *fresh, prompt, chunk_);
      if (question_seen_) return fresh;
      if (!fresh->forks()) {
        feed_prompt(model_, *fresh, question);
        return fresh;
      }
      cache_ = std::move(fresh);
      prompt_ = prompt;
    }
    auto fork = fork_of(*cache_);
    feed_prompt(model_, *fork, question);
    return fork;
  };
  const auto cache = asked();
  RecallResult result;
  result.prompt = static_cast<int>(prompt.size());
  result.generated = generate(model_, *cache, kAnswerTokens);
  result.hit = result.generated.find(task.answer) != std::string::npos;
  result.kept_mean = cache->kept_mean();
  result.bytes_end = static_cast<double>(cache->bytes_in_use());
  return result;
}

}  // namespace kvast::quality
