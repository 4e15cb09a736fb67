// SPDX-License-Identifier: Apache-2.0
// What every policy costs a decode step, beside a cache that keeps everything and holds as many
// tokens: steps of both in turn, so that both see the same machine. `attend_ms` is Full's attention
// of one layer; `weights_%` what attention takes beyond it, `policy_%` rank + select + evict,
// `sum_%` both, as shares of it. For policies that act at a prompt's end, `prompt_ms` is that
// commit of one layer, where half of the prompt goes. Rows of policies that need no weights show in
// `weights_%` how exact the figures are.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "bench/ops/policies/rows.h"

int main(int argc, char** argv) {
  std::string aligned = "--benchmark_counters_tabular=true";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, aligned.data());  // what the caller says comes later
  int count = static_cast<int>(arguments.size());
  kvast::bench::add_recency_rows();
  kvast::bench::add_attention_rows();
  kvast::bench::add_prompt_rows();
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
