// SPDX-License-Identifier: Apache-2.0
// kvast-eval: quality of a compressed cache on a real model. One JSON object per line on standard
// output, nothing else there (but for `demo`, which prints a table for people); progress and
// warnings go to standard error.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "bench/quality/demo.h"
#include "bench/quality/nll.h"
#include "bench/quality/recall.h"
#include "bench/quality/spec.h"

namespace {

using namespace kvast;
using namespace kvast::quality;
using Json = nlohmann::ordered_json;

constexpr int kUsage = 2;

struct Arguments {
  std::string model;
  std::string text;
  std::string tasks;
  std::string question_seen = "no";
  std::string device = "cpu";
  std::vector<std::string> policies{"full"};
  std::vector<std::string> storages{"f16"};
  std::vector<double> shares{0.5, 0.25, 0.125};
  int offset = 0;
  int threads = 2;
  NllOptions nll;
  DemoOptions demo;
};

void print(const Json& line) {
  std::printf("%s\n", line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

void list() {
  for (const Listed& listed : list_specs())
    print({{"kind", listed.kind}, {"name", listed.name}, {"keys", listed.keys}});
}

void print_nll(const Arguments& arguments, const NllOptions& options, const NllResult& result) {
  print({{"policy", options.policy},
         {"storage", options.storage},
         {"offset", arguments.offset},
         {"context", options.context},
         {"chunk", options.chunk},
         {"threads", arguments.threads},
         {"device", arguments.device},
         {"nll", result.nll},
         {"kl", result.kl},
         {"top1_agree", result.top1_agree},
         {"tokens", result.tokens},
         {"bytes_end", result.bytes_end},
         {"bytes_peak", result.bytes_peak},
         {"bytes_full_f16", result.bytes_full_f16},
         {"kept_mean", result.kept_mean},
         {"attend_ms", result.attend_ms},
         {"commit_ms", result.commit_ms},
         {"tokens_per_s", result.tokens_per_s},
         {"prefill_s", result.prefill_s},
         {"rules", result.report}});
}

/// Of the text, those skipped left out.
std::vector<int> read_tokens(Model& model, const Arguments& arguments) {
  std::vector<int> tokens = model.tokenizer().encode(read_text(arguments.text));
  tokens.erase(tokens.begin(),
               tokens.begin() + std::min(std::ptrdiff_t{arguments.offset}, std::ssize(tokens)));
  return tokens;
}

void nll(Model& model, const Arguments& arguments) {
  const std::vector<int> tokens = read_tokens(model, arguments);
  for (const std::string& policy : arguments.policies)  // refuse a SPEC before the long run
    (void)model.cache(policy, arguments.nll.storage, arguments.nll.context,
                      arguments.nll.continuation);
  std::fprintf(stderr, "full cache, %d + %d tokens\n", arguments.nll.context,
               arguments.nll.continuation);
  const Reference reference = run_reference(model, tokens, arguments.nll);
  for (const std::string& policy : arguments.policies) {
    std::fprintf(stderr, "%s, %s\n", policy.c_str(), arguments.nll.storage.c_str());
    NllOptions options = arguments.nll;
    options.policy = policy;
    print_nll(arguments, options, run_nll(model, tokens, options, reference));
  }
}

/// `policy` with as many tokens as `share` bytes allow; the digits say the number exactly.
std::string with_bytes(const std::string& policy, double share) {
  char digits[32];
  const std::to_chars_result end = std::to_chars(std::begin(digits), std::end(digits), share);
  return policy + (policy.find(':') == std::string::npos ? ":" : ",") +
         "bytes=" + std::string(digits, end.ptr);
}

/// A point of the frontier, and why its cache cannot be made; empty: it can.
struct Point {
  NllOptions options;
  std::string refused;
};

/// Policies x storages x bytes. A pair that no share of bytes suits is refused before the long run.
std::vector<Point> frontier_points(Model& model, const Arguments& arguments) {
  std::vector<Point> points;
  for (const std::string& storage : arguments.storages) {
    for (const std::string& policy : arguments.policies) {
      const bool whole = Spec::parse(policy).name() == "full";  // as many bytes as it needs
      const std::size_t first = points.size();
      for (const double share : whole ? std::vector<double>{1.0} : arguments.shares) {
        Point point{.options = arguments.nll, .refused = {}};
        point.options.storage = storage;
        point.options.policy = whole ? policy : with_bytes(policy, share);
        try {
          (void)model.cache(point.options.policy, storage, point.options.context,
                            point.options.continuation);
        } catch (const SpecError& error) {
          point.refused = error.what();
        }
        points.push_back(point);
      }
      if (std::all_of(points.begin() + static_cast<std::ptrdiff_t>(first), points.end(),
                      [](const Point& point) { return !point.refused.empty(); }))
        throw SpecError(points[first].refused);
    }
  }
  return points;
}

void frontier(Model& model, const Arguments& arguments) {
  const std::vector<int> tokens = read_tokens(model, arguments);
  const std::vector<Point> points = frontier_points(model, arguments);
  const Reference reference = run_reference(model, tokens, arguments.nll);
  for (const auto& [options, refused] : points) {
    std::fprintf(stderr, "%s, %s\n", options.policy.c_str(), options.storage.c_str());
    if (refused.empty()) {
      print_nll(arguments, options, run_nll(model, tokens, options, reference));
    } else {
      print({{"policy", options.policy}, {"storage", options.storage}, {"refused", refused}});
    }
    std::fflush(stdout);
  }
}

void recall(Model& model, const Arguments& arguments, const std::string& policy) {
  int hits = 0;
  const bool seen = arguments.question_seen == "yes";
  const std::vector<RecallTask> tasks = read_tasks(arguments.tasks);
  Recall asked(model, policy, arguments.nll.storage, seen, arguments.nll.chunk);
  for (std::size_t index = 0; index < tasks.size(); ++index) {
    std::fprintf(stderr, "%s: task %zu of %zu\n", policy.c_str(), index + 1, tasks.size());
    const RecallResult result = asked.run(tasks[index]);
    hits += result.hit ? 1 : 0;
    print({{"task", index},
           {"hit", result.hit},
           {"answer", tasks[index].answer},
           {"generated", result.generated},
           {"prompt", result.prompt},
           {"kept_mean", result.kept_mean},
           {"bytes_end", result.bytes_end}});
    std::fflush(stdout);
  }
  print({{"policy", policy},
         {"storage", arguments.nll.storage},
         {"question_seen", seen},
         {"tasks", tasks.size()},
         {"hits", hits},
         {"recall", static_cast<double>(hits) / static_cast<double>(tasks.size())}});
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("kvast-eval: what a compressed KV cache costs in quality");
  bool only_list = false;
  app.add_flag("--list", only_list, "print every policy and storage with its keys and defaults");
  const auto common = [&](CLI::App* command) {
    command->add_option("--model", arguments.model, "GGUF file")->required();
    command->add_option("--threads", arguments.threads, "threads")->check(CLI::Range(1, 1024));
    command->add_option("--device", arguments.device, kDeviceHelp)
        ->check(CLI::IsMember({"cpu", "gpu"}))
        ->capture_default_str();
  };
  const auto policy_option = [&](CLI::App* command) {
    command->add_option("--policy", arguments.policies, "SPEC of the policy; may be repeated")
        ->take_all()
        ->expected(1);
  };
  const auto cache_options = [&](CLI::App* command) {
    policy_option(command);
    command->add_option("--storage", arguments.nll.storage, "SPEC of the storage");
    command
        ->add_option("--chunk", arguments.nll.chunk,
                     "prefill in chunks of this many tokens; 0: at once")
        ->check(CLI::Range(0, 1 << 20));
  };
  const auto text_options = [&](CLI::App* command) {
    command->add_option("--text", arguments.text, "text file")->required();
    command->add_option("--offset", arguments.offset, "tokens of the text to skip first")
        ->check(CLI::Range(0, 1 << 30));
    command->add_option("--context", arguments.nll.context, "tokens prefilled")
        ->check(CLI::Range(1, 1 << 20));
    command->add_option("--continuation", arguments.nll.continuation, "tokens scored")
        ->check(CLI::Range(1, 1 << 20));
  };
  CLI::App* nll_command =
      app.add_subcommand("nll", "nats per token and divergence from the full cache");
  common(nll_command);
  cache_options(nll_command);
  text_options(nll_command);
  CLI::App* frontier_command =
      app.add_subcommand("frontier", "the same for policies and storages at equal bytes");
  common(frontier_command);
  policy_option(frontier_command);
  text_options(frontier_command);
  frontier_command
      ->add_option("--storage", arguments.storages, "SPEC of the storage; may be repeated")
      ->take_all()
      ->expected(1);
  frontier_command
      ->add_option("--bytes", arguments.shares,
                   "shares of the full f16 cache's bytes, or bytes in all; may be repeated")
      ->take_all()
      ->expected(1);
  CLI::App* recall_command = app.add_subcommand("recall", "answers that stand in the context");
  common(recall_command);
  cache_options(recall_command);
  recall_command->add_option("--tasks", arguments.tasks, "JSON lines of context, question, answer")
      ->required();
  recall_command
      ->add_option("--question-seen", arguments.question_seen,
                   "whether the policy acts after the question")
      ->check(CLI::IsMember({"yes", "no"}));
  CLI::App* demo_command = app.add_subcommand("demo", "a table for people");
  common(demo_command);
  demo_command->add_option("--text", arguments.demo.text, "text file")->required();
  demo_command->add_option("--questions", arguments.demo.questions,
                           "JSON lines of question, answer");
  demo_command->add_option("--context", arguments.demo.context, "tokens prefilled")
      ->check(CLI::Range(1, 1 << 20));
  demo_command->add_option("--continuation", arguments.demo.continuation, "tokens scored")
      ->check(CLI::Range(1, 1 << 20));
  demo_command
      ->add_option("--questions-asked", arguments.demo.most_questions, "of each cache, at most")
      ->check(CLI::Range(0, 1 << 20));
  app.require_subcommand(0, 1);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  try {
    if (only_list) {
      list();
      return 0;
    }
    if (app.get_subcommands().empty()) {
      std::fprintf(stderr, "%s", app.help().c_str());
      return kUsage;
    }
    Model model(arguments.model, arguments.threads, arguments.device);
    if (nll_command->parsed()) nll(model, arguments);
    if (frontier_command->parsed()) frontier(model, arguments);
    if (recall_command->parsed()) {
      for (const std::string& policy : arguments.policies) recall(model, arguments, policy);
    }
    if (demo_command->parsed()) run_demo(model, arguments.demo);
  } catch (const SpecError& error) {
    std::fprintf(stderr, "kvast-eval: %s\n", error.what());
    return kUsage;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "kvast-eval: %s\n", error.what());
    return kUsage;
  } catch (const Error& error) {
    std::fprintf(stderr, "kvast-eval: %s\n", error.what());
    return kUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kvast-eval: %s\n", error.what());
    return 1;
  }
  return 0;
}
