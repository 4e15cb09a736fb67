// SPDX-License-Identifier: Apache-2.0
// Every policy and storage behind one interface, so that a law is written and compiled once.
#pragma once

#include <algorithm>
#include <cctype>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kvast/core/pass_options.h"
#include "kvast/core/policy.h"
#include "kvast/core/pool.h"
#include "kvast/core/shape.h"
#include "tests/laws/scrambled.h"

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
  int prompt_budget = -1;            ///< in place of `budget` after a prompt's last pass
  std::vector<int> layer_budgets{};  ///< in place of `budget`
  bool keeps_specials = false;       ///< tokens of kind_of(position) == special always stay

  int budget_at(std::size_t layer, bool ended_prompt) const {
    if (ended_prompt && prompt_budget >= 0) return prompt_budget;
    return layer_budgets.empty() ? budget : layer_budgets[layer];
  }
};

/// What the tokenizer would say of the made-up model's tokens.
inline TokenKind kind_of(int position) {
  if (position % 23 == 7) return TokenKind::special;
  return position % 5 == 1 ? TokenKind::punctuation : TokenKind::other;
}

/// A cache over the made-up model.
class AnyCache {
 public:
  virtual ~AnyCache() = default;
  /// One pass; the outputs of all layers, one after the other (empty under External). Throws where
  /// the pool is exhausted.
  virtual std::vector<float> run(int tokens, Phase phase) = 0;
  /// One pass in which a policy that needs weights is shown made-up ones: coarse, so that many are
  /// equal, and the same whatever slots the tokens lie in.
  virtual void run_on_ties(int tokens, Phase phase) = 0;
  /// A pass that is dropped before its first commit, after `layers` appends and, if asked, attends.
  virtual void drop(int tokens, int layers, bool attends, Phase phase) = 0;
  virtual Kept kept() const = 0;
  virtual std::vector<int> slots(int layer, int head) const = 0;
  virtual int tokens(int layer, int head) const = 0;
  virtual int length() const = 0;
  virtual std::size_t bytes() const = 0;
  virtual Stats stats() const = 0;
  /// Decoded keys and values of all layers; empty under External.
  virtual std::vector<float> exported() = 0;
  virtual std::unique_ptr<AnyCache> fork() = 0;
  virtual void clear() = 0;
};

enum class LawStorage {
  f32,
  f16,
  kivi4,
  external,
  kivi2,
  int8,
  fp8,
  turbo3,
  bf16,
  kivi3,
  kivi8,
  kivi42,
  int4,
  e5m2,
  turbo2,
  turbo4,
  rotated2,
  kept_layer,
  eigen4,
  think,
  eigen,
  lorc,
  think4
};
inline constexpr LawStorage kLawStorages[] = {LawStorage::f32, LawStorage::f16, LawStorage::kivi4,
                                              LawStorage::external};
/// These with one group of query heads: what differs between formats meets no policy.
inline constexpr LawStorage kMoreLawStorages[] = {LawStorage::kivi2,  LawStorage::int8,
                                                  LawStorage::fp8,    LawStorage::turbo3,
                                                  LawStorage::eigen4, LawStorage::think};
/// And the rest, of which a quick run gives each policy some.
inline constexpr LawStorage kOtherLawStorages[] = {
    LawStorage::bf16,     LawStorage::kivi3,      LawStorage::kivi8,  LawStorage::kivi42,
    LawStorage::int4,     LawStorage::e5m2,       LawStorage::turbo2, LawStorage::turbo4,
    LawStorage::rotated2, LawStorage::kept_layer, LawStorage::eigen,  LawStorage::lorc,
    LawStorage::think4};
/// Dense vectors in a basis: what is not sealed does not care where it lies.
inline constexpr LawStorage kLowRankLawStorages[] = {LawStorage::eigen, LawStorage::lorc};

/// Query heads that share a kv head.
inline constexpr int kLawGroups[] = {1, 3, 8};

/// One cell of policy x storage x grouped query heads.
struct Cell {
  Promise policy;
  LawStorage storage;
  std::unique_ptr<AnyCache> (*maker)(const Cell& cell, BlockPool& pool, Executor executor,
                                     Scramble scramble);
  int group = 1;

  Shape shape() const {
    return {.layers = 2, .query_heads = 2 * group, .heads = 2, .head_dim = 16, .value_dim = 40};
  }
  std::unique_ptr<AnyCache> make(BlockPool& pool, Executor executor,
                                 Scramble scramble = Scramble::none) const {
    return maker(*this, pool, executor, scramble);
  }
  std::string name() const {
    static constexpr const char* kNames[] = {"Dense<float>",
                                             "Dense<half>",
                                             "Kivi<4>",
                                             "External",
                                             "Kivi<2>",
                                             "Int8",
                                             "Float8",
                                             "TurboQuant<3>",
                                             "Dense<BF16>",
                                             "Kivi<3>",
                                             "Kivi<8>",
                                             "Kivi<4,2>",
                                             "Int4",
                                             "Float8<E5M2>",
                                             "TurboQuant<2>",
                                             "TurboQuant<4>",
                                             "Rotated<Kivi<2>>",
                                             "Kivi<4> but layer 1",
                                             "EigenLowRank<Kivi<4>>",
                                             "ThinK<Dense<half>>",
                                             "EigenLowRank<Dense<half>>",
                                             "LoRC<Dense<half>>",
                                             "ThinK<Kivi<4>>"};
    return policy.name + " x " + kNames[static_cast<int>(storage)] + " x GQA " +
           std::to_string(group);
  }
  /// The name as a test's: letters and digits only.
  std::string identifier() const {
    std::string letters = name();
    std::erase_if(letters, [](unsigned char letter) { return std::isalnum(letter) == 0; });
    return letters;
  }
};
inline void PrintTo(const Cell& cell, std::ostream* out) { *out << cell.name(); }

// One translation unit each, so that they compile side by side.
std::vector<Cell> recency_cells();
std::vector<Cell> attention_cells();
std::vector<Cell> budget_cells();
std::vector<Cell> vector_cells();
std::vector<Cell> composite_cells();

/// Every policy with every storage.
inline std::vector<Cell> every_cell() {
  std::vector<Cell> cells;
  for (auto some : {recency_cells, attention_cells, budget_cells, vector_cells, composite_cells}) {
    for (Cell& cell : some()) cells.push_back(cell);
  }
  return cells;
}
/// A quick run: of kOtherLawStorages one in five for each policy, but all for Full. Where each step
/// is many times slower (under the sanitizers) the groups of query heads take turns, as do
/// storages: each policy but Full has one of the first four, and of the others one in six or
/// fifteen.
inline std::vector<Cell> all_cells() {
#if defined(__SANITIZE_ADDRESS__)
  constexpr bool kSlow = true;
#else
  constexpr bool kSlow = false;
#endif
  const auto among = [](const auto& storages, LawStorage storage) {
    return std::find(std::begin(storages), std::end(storages), storage) != std::end(storages);
  };
  std::vector<Cell> cells = every_cell();
  std::erase_if(cells, [&](const Cell& cell) {
    const std::size_t turn = cell.policy.name.size() + static_cast<std::size_t>(cell.storage);
    if (among(kOtherLawStorages, cell.storage))
      return cell.policy.name != "Full" && turn % (kSlow ? 15 : 5) != 0;
    if (!kSlow) return false;
    if (among(kMoreLawStorages, cell.storage)) return cell.policy.name != "Full" && turn % 6 != 0;
    if (cell.policy.name != "Full" && turn % 4 != 0) return true;
    return cell.group != kLawGroups[turn / 4 % std::size(kLawGroups)];
  });
  return cells;
}
inline std::vector<Cell> cells_with(LawStorage storage) {
  std::vector<Cell> cells = all_cells();
  std::erase_if(cells, [&](const Cell& cell) { return cell.storage != storage; });
  return cells;
}

}  // namespace kvast::test
