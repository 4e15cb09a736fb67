// SPDX-License-Identifier: Apache-2.0
// Decode attention side by side with llama.cpp: its ggml libraries and kvast in one process, on the
// same tokens, threads and shapes, step by step in turn. Every contender is compared with the
// reference in double before it is timed. `./dev peers` builds the libraries and runs this.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/ops/filled_cache.h"
#include "bench/peers/ggml_attention.h"

namespace {

using namespace kvast;
using namespace kvast::bench;
using namespace kvast::peers;

using Filled = FilledCache<Full, AnyStorage>;

struct Contender {
  std::string name;
  std::function<double()> step;  ///< seconds that one step through all layers took
  double bytes = 0;              ///< that it keeps keys and values in
  double added = 0;              ///< relative error against what it stores, in double
  double error = 0;              ///< relative error against the floats that it was given, in double
  bool rival = false;            ///< of ggml, with keys and values both in the type compared
  std::vector<double> seconds{};

  double time() const { return median(seconds); }
};

struct Case {
  const char* type_name;
  TensorType type;
  std::vector<std::pair<const char*, AnyStorage>> ours;
};

/// ggml rounds the query as it rounds keys (f16: to f16), and sums f16 values up in f16; a wrong
/// head or layout gives errors around 1.
double allowed_error(TensorType type) { return type == TensorType::f16 ? 0.03 : 0.1; }

void refuse(const Contender& contender, double allowed) {
  if (!(contender.added <= allowed))
    throw std::runtime_error(contender.name + ": wrong result, relative error " +
                             std::to_string(contender.added));
}

Contender of_kvast(const char* name, const Sizes& sizes, const AnyStorage& storage,
                   const std::vector<double>& exact) {
  const auto filled = std::make_shared<Filled>(sizes, Full{}, storage);
  Contender contender{.name = name, .step = [filled] { return filled->step(false).attend; }};
  contender.bytes = static_cast<double>(filled->cache().bytes_in_use());
  contender.added = filled->error();
  contender.error = test::relative_error(filled->outputs().data(), exact);
  refuse(contender, bench::allowed_error(storage));
  return contender;
}

Contender of_ggml(const Ggml& ggml, Backend* backend, const Tokens& tokens, int layers,
                  TensorType type, Way way, const std::vector<double>& exact) {
  static constexpr const char* kNames[] = {"flash", "flash, by head", "products"};
  const auto attention = std::make_shared<GgmlAttention>(ggml, backend, tokens, layers, type, way);
  Contender contender{.name = kNames[static_cast<int>(way)],
                      .step = [attention] { return seconds_of([&] { attention->step(); }); }};
  if (way == Way::products && type != TensorType::f16) contender.name += ", V f16";
  attention->step();
  contender.bytes = attention->bytes();
  contender.added = attention->error(attention->stored().attended());
  contender.error = attention->error(exact);
  contender.rival = way != Way::products || type == TensorType::f16;
  refuse(contender, allowed_error(type));
  return contender;
}

/// All contenders in turn, memory swept in between. Returns the streaming bandwidth meanwhile. A
/// round in which memory streamed at less than 0.8 of the best rate so far was run beside other
/// programs: it does not count, and a machine on which most rounds do not count is no place to
/// time.
double race(std::vector<Contender>& contenders, int repeats) {
  static double best_roof = 0;
  std::vector<double> roofs;
  int counted = -1;  // the first round warms up
  for (int round = 0; counted < repeats; ++round) {
    if (round > 4 * (repeats + 1))
      throw std::runtime_error("other programs are taking the processors from this one");
    std::vector<double> meanwhile;
    std::vector<double> seconds;
    for (const Contender& contender : contenders) {
      meanwhile.push_back(stream());
      seconds.push_back(contender.step());
    }
    const double roof = median(meanwhile);
    best_roof = std::max(best_roof, roof);
    if (roof < 0.8 * best_roof) continue;
    if (++counted == 0) continue;
    roofs.push_back(roof);
    for (std::size_t at = 0; at < contenders.size(); ++at)
      contenders[at].seconds.push_back(seconds[at]);
  }
  return median(roofs);
}

/// How many times as long `slow` takes, by the median over rounds.
double ratio(const Contender& slow, const Contender& fast) {
  std::vector<double> ratios;
  for (std::size_t round = 0; round < slow.seconds.size(); ++round)
    ratios.push_back(slow.seconds[round] / fast.seconds[round]);
  return median(ratios);
}

struct Arguments {
  std::string libraries;
  std::string build;
  std::string json;
  int repeats = 9;
  std::vector<int> tokens{1024, 4096, 6144, 16384};
};

/// The tokens of a filled cache after a step: it appends its first token once more.
Tokens tokens_of(const Sizes& sizes) {
  const Filled filled(sizes, Full{}, Dense<half>{});
  const auto front = [](const std::vector<float>& numbers, int count) {
    return std::vector<float>(numbers.begin(), numbers.begin() + count);
  };
  const auto with_first_again = [&](std::vector<float> numbers) {
    const std::vector<float> first = front(numbers, sizes.heads * sizes.head_dim);
    numbers.insert(numbers.end(), first.begin(), first.end());
    return numbers;
  };
  return {.query_heads = sizes.query_heads,
          .heads = sizes.heads,
          .dim = sizes.head_dim,
          .keys = with_first_again(filled.keys()),
          .values = with_first_again(filled.values()),
          .query = front(filled.queries(), sizes.query_heads * sizes.head_dim)};
}

/// Four digits: more would only make the file long.
double rounded(double number) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.4g", number);
  return std::strtod(digits, nullptr);
}

nlohmann::json run(const Ggml& ggml, Backend* backend, const Sizes& asked, const Case& compared,
                   const Arguments& arguments) {
  Sizes sizes = asked;  // a step appends the last token
  --sizes.tokens;
  sizes.layers = layers_for(asked);
  const Tokens tokens = tokens_of(sizes);
  const std::vector<double> exact = tokens.attended();
  std::vector<Contender> contenders;
  for (const auto& [name, storage] : compared.ours)
    contenders.push_back(of_kvast(name, sizes, storage, exact));
  const std::size_t flash = contenders.size();
  for (const Way way : {Way::flash, Way::by_head, Way::products})
    contenders.push_back(of_ggml(ggml, backend, tokens, sizes.layers, compared.type, way, exact));
  const double roof = race(contenders, arguments.repeats);

  std::size_t best = flash;
  for (std::size_t at = flash; at < contenders.size(); ++at) {
    if (contenders[at].rival && contenders[at].time() < contenders[best].time()) best = at;
  }
  nlohmann::json rows = nlohmann::json::array();
  const std::string shape = std::to_string(sizes.query_heads) + "/" + std::to_string(sizes.heads) +
                            "/" + std::to_string(sizes.head_dim);
  for (std::size_t at = 0; at < contenders.size(); ++at) {
    const Contender& contender = contenders[at];
    const char* by = at < flash ? "kvast" : "ggml";
    const double rate = contender.bytes / contender.time();
    const double than_flash = ratio(contenders[flash], contender);
    const double than_best = ratio(contenders[best], contender);
    std::printf("%-9s %6d %-5s %-5s %-15s %8.2f %6.2f %6.2f %8.2f %8.2f %9.1e %8.1e\n",
                shape.c_str(), asked.tokens, compared.type_name, by, contender.name.c_str(),
                contender.time() * 1e3, rate / 1e9, rate / roof, than_flash, than_best,
                contender.added, contender.error);
    rows.push_back({{"build", arguments.build},
                    {"ggml", ggml.version()},
                    {"threads", kThreads},
                    {"repeats", arguments.repeats},
                    {"shape", shape},
                    {"tokens", asked.tokens},
                    {"layers", sizes.layers},
                    {"type", compared.type_name},
                    {"by", by},
                    {"way", contender.name},
                    {"milliseconds", rounded(contender.time() * 1e3)},
                    {"gigabytes_per_second", rounded(rate / 1e9)},
                    {"stream_gigabytes_per_second", rounded(roof / 1e9)},
                    {"times_as_fast_as_flash", rounded(than_flash)},
                    {"times_as_fast_as_best", rounded(than_best)},
                    {"best", at == best},
                    {"added_error", rounded(contender.added)},
                    {"total_error", rounded(contender.error)}});
  }
  std::fflush(stdout);
  return rows;
}

/// Adds rows to those that the file holds already, one a line.
void save(const std::string& path, const nlohmann::json& rows) {
  nlohmann::json all = nlohmann::json::array();
  if (std::ifstream before(path); before) all = nlohmann::json::parse(before);
  all.insert(all.end(), rows.begin(), rows.end());
  std::ofstream file(path);
  for (std::size_t at = 0; at < all.size(); ++at)
    file << (at == 0 ? "[\n" : ",\n") << all[at].dump();
  file << "\n]\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void run_all(const Arguments& arguments) {
  const Ggml ggml(arguments.libraries);
  Backend* backend = ggml.cpu(kThreads);
  const std::vector<Case> cases{
      {"f16", TensorType::f16, {{"Dense<half>", Dense<half>{}}}},
      {"q8_0", TensorType::q8_0, {{"Int8", Int8{}}}},
      {"q4_0", TensorType::q4_0, {{"Kivi<4>", Kivi<4>{}}, {"Kivi<2>", Kivi<2>{}}}}};
  std::printf(
      "ggml %s, %s build, %d threads; times as fast as ggml's flash attention on llama.cpp's "
      "layout, and as the best of its ways\n",
      ggml.version(), arguments.build.c_str(), kThreads);
  std::printf("%-9s %6s %-5s %-5s %-15s %8s %6s %6s %8s %8s %9s %8s\n", "Q/H/D", "tokens", "type",
              "by", "way", "ms", "GB/s", "stream", "x flash", "x best", "added err", "error");
  for (const Sizes& shape : {Sizes{9, 3, 64, 0, 0}, Sizes{32, 8, 128, 0, 0}}) {
    for (const int tokens : arguments.tokens) {
      Sizes sizes = shape;
      sizes.tokens = tokens;
      for (const Case& compared : cases) {
        const nlohmann::json rows = run(ggml, backend, sizes, compared, arguments);
        if (!arguments.json.empty()) save(arguments.json, rows);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("bench-peers: decode attention of kvast and of llama.cpp's ggml, side by side");
  app.add_option("libraries", arguments.libraries, "folder of libggml-base.so and libggml-cpu.so")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--build", arguments.build, "what this build of the libraries is called");
  app.add_option("--json", arguments.json, "add all figures to this file");
  app.add_option("--repeats", arguments.repeats, "rounds that are timed")
      ->check(CLI::Range(1, 1000));
  app.add_option("--tokens", arguments.tokens, "context lengths")->check(CLI::Range(64, 1 << 20));
  CLI11_PARSE(app, argc, argv);
  try {
    run_all(arguments);
  } catch (const std::exception& error) {
    std::cerr << "bench-peers: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
