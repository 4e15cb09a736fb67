// SPDX-License-Identifier: Apache-2.0
// kvast-decode: continues a text or holds a chat, with any policy and storage as its cache. What
// the model says goes to standard output as it comes, everything else to standard error.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/quality/any_model.h"
#include "bench/quality/spec.h"
#include "examples/decoder/calibrate.h"
#include "examples/decoder/chat.h"
#include "examples/decoder/gguf.h"
#include "examples/decoder/mapped_file.h"
#include "examples/decoder/tokenizer.h"
#include "kvast/core/error.h"
#include "kvast/core/pass_options.h"
#include "kvast/core/pool.h"
#include "kvast/host/openmp.h"

namespace {

using namespace kvast;
using decoder::Tokenizer;

constexpr int kUsage = 2;

struct Arguments {
  std::string model;
  std::string prompt;
  std::string file;
  std::string system;
  std::string policy = "full";
  std::string storage = "f16";
  std::string device = "cpu";
  int tokens = 256;
  int threads = 2;
  bool chat = false;
  bool list = false;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Where ./dev keeps the model that it fetches.
std::string default_model() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string model = variable("KVAST_MODEL"); !model.empty()) return model;
  const std::string cache = variable("XDG_CACHE_HOME");
  return (cache.empty() ? variable("HOME") + "/.cache" : cache) +
         "/kvast/SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream.good() && !stream.eof()) throw UsageError("cannot read '" + path + "'");
  return text;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// A text that grows: what was fed to the model, and what was said but not fed yet.
class Session {
 public:
  Session(quality::AnyModel& model, const Tokenizer& tokenizer, quality::AnyCache& cache)
      : model_(&model), tokenizer_(&tokenizer), cache_(&cache) {}

  void prompt(std::vector<int> tokens) {
    tokens.insert(tokens.begin(), unfed_.begin(), unfed_.end());
    unfed_.clear();
    const auto start = std::chrono::steady_clock::now();
    feed(tokens, true);
    std::fprintf(stderr, "prompt: %zu tokens, %.2f s\n", tokens.size(), seconds_since(start));
  }

  /// Says up to `most` tokens, each the likeliest.
  void generate(int most) {
    const auto start = std::chrono::steady_clock::now();
    model_->reset_cache_time();
    int said = 0, fed = 0;
    while (said < most) {
      const int token = model_->best();
      if (tokenizer_->is_end(token)) break;
      const std::string& text = tokenizer_->decode(token);
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
      ++said;
      if (said == most) {
        unfed_.push_back(token);
      } else {
        feed({token}, false);
        ++fed;
      }
    }
    std::fputc('\n', stdout);
    std::fflush(stdout);
    report(said, fed, seconds_since(start));
  }

 private:
  void feed(const std::vector<int>& tokens, bool prompt) {
    const std::vector<TokenKind> kinds = tokenizer_->kinds(tokens);
    PassOptions pass;
    pass.last_of_prompt = prompt;
    pass.kinds = kinds;
    const Status status = model_->forward(*cache_, tokens, cache_->length(), pass);
    if (!status) throw std::runtime_error(status.message());
  }

  void report(int said, int fed, double seconds) const {
    const decoder::CacheTime time = model_->cache_time();
    const double steps = fed > 0 ? fed : 1;
    std::fprintf(stderr, "generated: %d tokens, %.1f tokens/s", said, fed / seconds);
    if (!std::isnan(time.attend))
      std::fprintf(stderr, " (attend %.2f ms, commit %.2f ms a step)", time.attend / steps * 1e3,
                   time.commit / steps * 1e3);
    std::fprintf(stderr, "\ncache: %d tokens long, %.1f kept per head, %.2f MiB\n",
                 cache_->length(), cache_->kept_mean(),
                 static_cast<double>(cache_->bytes_in_use()) / (1024.0 * 1024.0));
  }

  quality::AnyModel* model_;
  const Tokenizer* tokenizer_;
  quality::AnyCache* cache_;
  std::vector<int> unfed_;
};

void list() {
  for (const quality::Listed& listed : quality::list_specs()) {
    std::printf("%-8s %-16s %s\n", listed.kind.c_str(), listed.name.c_str(), listed.keys.c_str());
  }
}

std::vector<int> first_tokens(const Tokenizer& tokenizer, std::optional<decoder::Chat>& chat,
                              const std::string& text) {
  if (chat) return chat->turn(text);
  std::vector<int> tokens = tokenizer.encode(text);
  if (tokenizer.begins() >= 0) tokens.insert(tokens.begin(), tokenizer.begins());
  if (tokens.empty()) throw UsageError("the prompt is empty");
  return tokens;
}

void run(const Arguments& arguments) {
  const Executor executor = openmp(arguments.threads);
  const decoder::MappedFile file(arguments.model);
  const decoder::Gguf gguf(file.bytes());
  const Tokenizer tokenizer(gguf);
  const auto opened = quality::open_model(gguf, executor, arguments.device);
  quality::AnyModel& model = *opened;
  if (tokenizer.size() > model.config().vocabulary) {
    throw decoder::FileError("the file's tokenizer has more tokens than its model");
  }
  std::optional<decoder::Chat> chat;
  if (arguments.chat) chat.emplace(gguf, tokenizer);
  if (chat && !arguments.system.empty()) chat->set_system(arguments.system);

  std::string text = arguments.file.empty() ? arguments.prompt : read_file(arguments.file);
  const bool interactive = chat && text.empty();
  if (interactive && !std::getline(std::cin, text)) return;
  const std::vector<int> tokens = first_tokens(tokenizer, chat, text);

  BlockPool pool;
  const auto cache = quality::make_cache(arguments.policy, arguments.storage,
                                         {.shape = model.config().shape(),
                                          .prompt_tokens = static_cast<int>(tokens.size()),
                                          .rope = model.config().rope,
                                          .executor = executor,
                                          .pool = &pool,
                                          .device = model.device(),
                                          .weights = [&] {
                                            return std::make_shared<const WeightCalibration>(
                                                decoder::calibrate_weights(decoder::Llama(gguf)));
                                          }});
  Session session(model, tokenizer, *cache);
  session.prompt(tokens);
  if (!chat) std::fwrite(arguments.prompt.data(), 1, arguments.prompt.size(), stdout);
  session.generate(arguments.tokens);
  while (interactive && std::getline(std::cin, text)) {
    session.prompt(chat->turn(text));
    session.generate(arguments.tokens);
  }
}

void describe(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model,
                 "GGUF file of a Llama model [" + default_model() + "]");
  auto* prompt = app.add_option("--prompt", arguments.prompt, "text to continue");
  app.add_option("--file", arguments.file, "file with the text to continue")->excludes(prompt);
  auto* chat = app.add_flag(
      "--chat", arguments.chat,
      "the text is a user's message; without text, every line of standard input is one");
  app.add_option("--system", arguments.system, "the chat's system message")->needs(chat);
  app.add_option("--policy", arguments.policy, "SPEC of who stays: name[:key=value,...]")
      ->capture_default_str();
  app.add_option("--storage", arguments.storage, "SPEC of how it is kept")->capture_default_str();
  app.add_option("--device", arguments.device, quality::kDeviceHelp)
      ->check(CLI::IsMember({"cpu", "gpu"}))
      ->capture_default_str();
  app.add_option("--tokens", arguments.tokens, "most tokens to generate")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", arguments.threads, "threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_flag("--list", arguments.list,
               "print every policy and storage with its keys and defaults");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("kvast-decode: a decoder whose cache keeps itself small");
  describe(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  const auto say = [](const std::exception& error) {
    std::fprintf(stderr, "kvast-decode: %s\n", error.what());
  };
  try {
    if (arguments.list) {
      list();
      return 0;
    }
    if (arguments.prompt.empty() && arguments.file.empty() && !arguments.chat) {
      throw UsageError("say --prompt TEXT, --file FILE or --chat; --help lists everything");
    }
    if (arguments.model.empty()) arguments.model = default_model();
    run(arguments);
  } catch (const quality::SpecError& error) {
    say(error);
    return kUsage;
  } catch (const UsageError& error) {
    say(error);
    return kUsage;
  } catch (const Error& error) {  // settings that a policy or storage refuses
    say(error);
    return kUsage;
  } catch (const std::exception& error) {
    say(error);
    return 1;
  }
  return 0;
}
