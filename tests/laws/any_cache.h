// SPDX-License-Identifier: Apache-2.0
// Every policy and storage behind one interface, so that a law is written and compiled once.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kvast/core/pass_options.h"
#include "kvast/core/pool.h"
#include "kvast/core/shape.h"

namespace kvast::test {

enum class Phase {
  decode,
  prompt,
  chunk
};  ///< of a pass: neither flag, last_of_prompt, more_of_prompt

/// Positions kept, [layer][head].
using Kept = std::vector<std::vector<std::vector<int>>>;

/// What a law may expect of one policy with the settings used here.
struct Promise {
  std::string name;
  int budget = -1;             ///< tokens per head, after every pass (or after a prompt); -1: none
  int slack_layers = 0;        ///< first layers that keep everything
  bool shares_budget = false;  ///< the budget is the mean over a layer's heads
  bool only_at_prompts = false;  ///< the budget holds after a prompt's last pass
  bool whole_prompts = false;    ///< chunks are refused
  int sinks = 0;                 ///< first positions that are always kept
  int recent = 0;                ///< newest positions that are always kept
  bool ends_alike = false;       ///< kept sets do not depend on how tokens arrived
  bool shared_by_layer = false;
};

/// A cache over the made-up model.
class AnyCache {
 public:
  virtual ~AnyCache() = default;
  /// One pass; the outputs of all layers, one after the other (empty under External). Throws where
  /// the pool is exhausted.
  virtual std::vector<float> run(int tokens, Phase phase) = 0;
  /// A pass that is dropped before its first commit, after `layers` appends and, if asked, attends.
  virtual void drop(int tokens, int layers, bool attends) = 0;
  virtual Kept kept() const = 0;
  virtual int tokens(int layer, int head) const = 0;
  virtual int length() const = 0;
  virtual std::size_t bytes() const = 0;
  virtual Stats stats() const = 0;
  /// Decoded keys and values of all layers; empty under External.
  virtual std::vector<float> exported() = 0;
  virtual std::unique_ptr<AnyCache> fork() = 0;
  virtual void clear() = 0;
};

inline constexpr Shape kLawShape{
    .layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16, .value_dim = 40};

enum class LawStorage { f32, f16, kivi4, external };
inline constexpr LawStorage kLawStorages[] = {LawStorage::f32, LawStorage::f16, LawStorage::kivi4,
                                              LawStorage::external};

/// One cell of policy x storage.
struct Cell {
  Promise policy;
  LawStorage storage;
  std::unique_ptr<AnyCache> (*maker)(LawStorage storage, BlockPool& pool, Executor executor);

  std::unique_ptr<AnyCache> make(BlockPool& pool, Executor executor) const {
    return maker(storage, pool, executor);
  }
  std::string name() const {
    static constexpr const char* kNames[] = {"Dense<float>", "Dense<half>", "Kivi<4>", "External"};
    return policy.name + " x " + kNames[static_cast<int>(storage)];
  }
};

// One translation unit each, so that they compile side by side.
std::vector<Cell> recency_cells();
std::vector<Cell> attention_cells();
std::vector<Cell> budget_cells();
std::vector<Cell> vector_cells();
std::vector<Cell> composite_cells();

inline std::vector<Cell> all_cells() {
  std::vector<Cell> cells;
  for (auto some : {recency_cells, attention_cells, budget_cells, vector_cells, composite_cells}) {
    for (Cell& cell : some()) cells.push_back(cell);
  }
  return cells;
}
inline std::vector<Cell> cells_with(LawStorage storage) {
  std::vector<Cell> cells = all_cells();
  std::erase_if(cells, [&](const Cell& cell) { return cell.storage != storage; });
  return cells;
}

}  // namespace kvast::test
