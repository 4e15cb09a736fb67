// SPDX-License-Identifier: Apache-2.0
// kvast-calibrate: runs a text through a model and writes the directions in which its keys and
// values lie, for the storage `eigen:basis=FILE`; on request a report of their energy by layer.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/quality/any_cache.h"
#include "examples/decoder/calibrate.h"
#include "examples/decoder/gguf.h"
#include "examples/decoder/mapped_file.h"
#include "examples/decoder/tokenizer.h"
#include "kvast/calibrate/calibration_file.h"
#include "kvast/calibrate/finalize.h"
#include "kvast/calibrate/ranks.h"
#include "kvast/host/openmp.h"

namespace {

using namespace kvast;
using Json = nlohmann::ordered_json;

constexpr int kUsage = 2;

struct Arguments {
  std::string model;
  std::string text;
  std::string out;
  std::string report;
  int tokens = 8192;
  int window = 2048;
  int threads = 2;
};

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string read_file(const std::string& path) {
  std::string text;
  if (!kvast::detail::read_file(path, text)) throw UsageError("cannot read '" + path + "'");
  return text;
}

/// Before a long run: can the file be written once it is over?
void check_writable(const std::string& path) {
  const bool existed = std::filesystem::exists(path);
  const bool good = std::ofstream(path, std::ios::app).good();
  if (!good) throw UsageError("cannot write '" + path + "'");
  if (!existed) std::filesystem::remove(path);
}

/// One line on standard error, drawn anew.
class ProgressBar {
 public:
  explicit ProgressBar(int total) : total_(total) { show(0); }
  void show(int done) const {
    constexpr int kWidth = 40;
    const int full = static_cast<int>(std::int64_t{kWidth} * done / total_);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    std::fprintf(stderr, "\r[%s%s] %d of %d tokens, %.1f s%s",
                 std::string(static_cast<std::size_t>(full), '#').c_str(),
                 std::string(static_cast<std::size_t>(kWidth - full), '.').c_str(), done, total_,
                 seconds, done == total_ ? "\n" : "");
    std::fflush(stderr);
  }

 private:
  int total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Energies of each basis, the strongest direction first, each as a share of the basis's whole.
Json shares_of(const Directions& directions) {
  Json bases = Json::array();
  for (int head = 0; head < directions.heads; ++head) {
    double total = 0.0;
    for (int at = 0; at < directions.dim; ++at) total += directions.energy(head, at);
    Json shares = Json::array();
    for (int at = 0; at < directions.dim; ++at)
      shares.push_back(total > 0.0 ? directions.energy(head, at) / total : 0.0);
    bases.push_back(shares);
  }
  return bases;
}

Json report_of(const Calibration& calibration) {
  Json ranks = Json::array();
  for (const double share : {0.9, 0.95, 0.99, 0.999}) {
    Json keys = Json::array();
    Json values = Json::array();
    for (const LayerRanks& layer : ranks_by_energy(calibration, share)) {
      keys.push_back(layer.keys);
      values.push_back(layer.values);
    }
    ranks.push_back({{"energy", share}, {"keys", keys}, {"values", values}});
  }
  Json layers = Json::array();
  for (const LayerDirections& layer : calibration.layers)
    layers.push_back({{"keys", shares_of(layer.keys)}, {"values", shares_of(layer.values)}});
  const Shape& shape = calibration.shapes[0];
  return {{"tokens", calibration.tokens},
          {"before_rope", calibration.before_rope},
          {"heads", shape.heads},
          {"head_dim", shape.head_dim},
          {"value_dim", shape.values()},
          {"ranks", ranks},
          {"layers", layers}};
}

void check(const Status& status) {
  if (!status) throw UsageError(status.message());
}

void run(const Arguments& arguments) {
  const Executor executor = openmp(arguments.threads);
  const decoder::MappedFile file(arguments.model);
  const decoder::Gguf gguf(file.bytes());
  const decoder::Tokenizer tokenizer(gguf);
  decoder::Llama model(gguf, executor);
  std::vector<int> tokens = tokenizer.encode(read_file(arguments.text));
  if (static_cast<int>(tokens.size()) > arguments.tokens)
    tokens.resize(static_cast<std::size_t>(arguments.tokens));
  const int least = model.config().head_dim;
  if (static_cast<int>(tokens.size()) < least)
    throw UsageError("'" + arguments.text + "' has " + std::to_string(tokens.size()) +
                     " tokens, calibration needs at least head_dim = " + std::to_string(least));
  check_writable(arguments.out);
  if (!arguments.report.empty()) check_writable(arguments.report);
  BlockPool pool;
  const ProgressBar bar(static_cast<int>(tokens.size()));
  const Moments moments = decoder::observe_text(
      model, tokens, arguments.window,
      [&] {
        return quality::make_cache("full:positions=unrotated", "f16",
                                   {.shape = model.config().shape(),
                                    .prompt_tokens = arguments.window,
                                    .rope = model.config().rope,
                                    .executor = executor,
                                    .pool = &pool});
      },
      [&](int done) { bar.show(done); });
  const Calibration calibration = finalize(moments);
  check(save_calibration(calibration, arguments.out));
  if (arguments.report.empty()) return;
  std::ofstream report(arguments.report);
  report << report_of(calibration).dump() << '\n';
  report.close();
  if (!report) throw UsageError("cannot write '" + arguments.report + "'");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("kvast-calibrate: the directions in which a model's keys and values lie");
  app.add_option("--model", arguments.model, "GGUF file of a Llama model")->required();
  app.add_option("--text", arguments.text, "text file, unlike what the cache is judged on")
      ->required();
  app.add_option("--out", arguments.out, "calibration file to write")->required();
  app.add_option("--report", arguments.report, "JSON file of energy by layer to write");
  app.add_option("--tokens", arguments.tokens, "tokens of the text, at most")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--window", arguments.window, "tokens that see each other")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", arguments.threads, "threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsage;
  }
  try {
    run(arguments);
  } catch (const UsageError& error) {
    std::fprintf(stderr, "kvast-calibrate: %s\n", error.what());
    return kUsage;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kvast-calibrate: %s\n", error.what());
    return 1;
  }
  return 0;
}
