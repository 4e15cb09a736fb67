// SPDX-License-Identifier: Apache-2.0
// The table that `./dev demo` prints: one row per policy and storage, on a real model and a real
// text.
#pragma once

#include <string>

#include "bench/quality/model.h"

namespace kvast::quality {

struct DemoOptions {
  std::string text;       ///< file
  std::string questions;  ///< file; empty: none are asked
  int context = 4000;
  int continuation = 128;
  int most_questions = 12;  ///< asked of each cache, spread over the file
};

void run_demo(Model& model, const DemoOptions& options);

}  // namespace kvast::quality
