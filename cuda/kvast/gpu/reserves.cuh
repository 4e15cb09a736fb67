// SPDX-License-Identifier: Apache-2.0
// What a cache has been promised of its pool.
#pragma once

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "kvast/gpu/ledger.h"
#include "kvast/gpu/pool.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Promises enough of each size of blocks for every pass and every replay: by the tokens that were
/// sent, and by what the device reported some steps ago was in use and had been brought, as no more
/// can have come since than was sent, or reserved for replays, and had not been brought. Gives all
/// back at its end.
template <class DeviceType>
class Reserves {
 public:
  Reserves(Pool<DeviceType>& pool, int sequences)
      : pool_(pool),
        sequences_(sequences),
        unsealed_(static_cast<std::size_t>(sequences)),
        mid_prompt_(static_cast<std::size_t>(sequences)) {}
  Reserves(const Reserves&) = delete;
  Reserves& operator=(const Reserves&) = delete;
  /// The blocks are lost: what was promised for them stays promised, until the pool ends.
  void abandon() { promised_.assign(promised_.size(), 0); }
  ~Reserves() {
    for (std::size_t at = 0; at < promised_.size(); ++at) {
      const typename Pool<DeviceType>::Promise mine{local_[at], promised_[at]};
      pool_.take_back({&mine, 1});
    }
  }

  /// A layer's sizes of blocks, whose bytes `view` has.
  void add_layer(const LayerView& view, const Habit& habit, Caller caller) {
    Sizes sizes{.heads = view.head_count};
    sizes.side = size_of(view.side.bytes, caller);
    sizes.dense_keys = size_of(view.dense_keys.bytes, caller);
    sizes.dense_values = size_of(view.dense_values.bytes, caller);
    if (habit.coded) {
      sizes.coded_keys = size_of(view.coded_keys.bytes, caller);
      sizes.coded_values = size_of(view.coded_values.bytes, caller);
    }
    sizes_.push_back(sizes);
    habits_.push_back(habit);
    ledgers_.emplace_back(habit, sequences_);
  }
  bool codes(int layer) const { return habits_[static_cast<std::size_t>(layer)].coded; }

  /// Lists and counters of a layer's sizes.
  void link(LayerView& view, Counters* counters) const {
    const Sizes& sizes = sizes_[static_cast<std::size_t>(view.layer)];
    const auto fill = [&](BlockClass& size, int at) {
      if (at < 0) return;
      size.list = pool_.list(local_[static_cast<std::size_t>(at)]);
      size.in_use = &counters->in_use[at];
      size.missing = &counters->missing;
    };
    fill(view.side, sizes.side);
    fill(view.dense_keys, sizes.dense_keys);
    fill(view.dense_values, sizes.dense_values);
    fill(view.coded_keys, sizes.coded_keys);
    fill(view.coded_values, sizes.coded_values);
  }

  /// For a pass that brings `counts`, sealed at its end where `seals`, after `seen`, the device's
  /// newest report. A failure changes nothing.
  Status provide(const std::vector<int>& counts, bool seals, const Counters& seen) {
    return promise(bounds(counts, seals, seen));
  }
  /// A sequence that comes from elsewhere brings blocks of a layer; until settle() nobody counts
  /// them otherwise.
  Status provide_blocks(int layer, std::int64_t coded, std::int64_t dense) {
    const Sizes& sizes = sizes_[static_cast<std::size_t>(layer)];
    wanted_ = promised_;
    const auto add = [&](int at, std::int64_t blocks) {
      if (at >= 0) wanted_[static_cast<std::size_t>(at)] += blocks;
    };
    add(sizes.side, coded + dense);
    add(sizes.dense_keys, dense);
    add(sizes.dense_values, dense);
    add(sizes.coded_keys, coded);
    add(sizes.coded_values, coded);
    return promise(wanted_);
  }
  /// For replays that bring `tokens` to each sequence, or as many in all, until settle().
  void expect_replays(int tokens) { replayed_ = tokens; }
  int replayed() const { return replayed_; }

  /// The pass is over.
  void advance(const std::vector<int>& counts, bool seals) {
    for (Ledger& ledger : ledgers_)
      ledger.advance([&](std::size_t at) { return counts[at]; }, seals);
    sent_ += static_cast<unsigned>(sum_of(counts));
    for (std::size_t at = 0; at < counts.size(); ++at) {
      unsealed_[at] = seals && counts[at] > 0 ? 0 : unsealed_[at] + counts[at];
      if (counts[at] > 0) mid_prompt_[at] = !seals;
    }
  }
  /// Whether a prompt of the sequence goes on.
  bool mid_prompt(int sequence) const { return mid_prompt_[static_cast<std::size_t>(sequence)]; }
  void set_mid_prompt(int sequence, bool goes_on) {
    mid_prompt_[static_cast<std::size_t>(sequence)] = goes_on;
  }
  /// Tokens of one sequence that came since the last pass that sealed.
  int unsealed() const { return *std::max_element(unsealed_.begin(), unsealed_.end()); }
  /// Blocks that no list of a head can have more of at the end of a pass that brings `counts`,
  /// after `seen`, where it has `longest` at most by the tokens that ever came.
  std::int64_t most_blocks(const std::vector<int>& counts, const Counters& seen,
                           std::int64_t longest) const {
    // where tokens are sealed, those of one list come to another one's
    const int lists =
        std::any_of(habits_.begin(), habits_.end(), [](const Habit& habit) { return habit.coded; })
            ? 2
            : 1;
    return std::min(longest, lists * (std::int64_t{seen.longest} + 1) +
                                 blocks_of(since_report(seen) + sum_of(counts)));
  }
  void forget(int sequence) {
    for (Ledger& ledger : ledgers_) ledger.forget(sequence);
    unsealed_[static_cast<std::size_t>(sequence)] = 0;
    set_mid_prompt(sequence, false);
  }
  /// Replays have brought the sequences to `lengths`, of which `unsealed` tokens came since they
  /// were last sealed. The device has done all that was sent, and `now` is its report. Unless they
  /// `go_on`, replays that were reserved and did not run will not.
  void settle(const std::vector<int>& lengths, const std::vector<int>& unsealed,
              const Counters& now, bool go_on) {
    for (Ledger& ledger : ledgers_) ledger.jump([&](std::size_t at) { return lengths[at]; });
    for (std::size_t at = 0; at < unsealed.size();
         ++at) {  // where replays brought nothing it stays
      if (unsealed[at] != unsealed_[at]) mid_prompt_[at] = unsealed[at] > 0;
    }
    unsealed_ = unsealed;
    if (go_on) return;
    sent_ = static_cast<unsigned>(now.brought);
    replayed_ = 0;
  }

  /// Bytes of the blocks that a report counts.
  std::size_t bytes(const Counters& counters) const {
    std::size_t all = 0;
    for (std::size_t at = 0; at < local_.size(); ++at)
      all += static_cast<std::size_t>(counters.in_use[at]) * pool_.block_bytes(local_[at]);
    return all;
  }

 private:
  /// Places in `local_`; negative: the layer has none.
  struct Sizes {
    int heads = 0;
    int side = -1;
    int dense_keys = -1;
    int dense_values = -1;
    int coded_keys = -1;
    int coded_values = -1;
  };

  /// Blocks of one size that may be taken after a report: for what came, for what is sealed, and
  /// how many of a layer's kinds of blocks that are sealed have the size.
  struct Growth {
    std::int64_t came = 0;
    std::int64_t sealed = 0;
    int roles = 0;
  };

  int size_of(std::int64_t bytes, Caller caller) {
    const int size_class = pool_.class_of(static_cast<std::size_t>(bytes), caller);
    const auto found = std::find(local_.begin(), local_.end(), size_class);
    if (found != local_.end()) return static_cast<int>(found - local_.begin());
    require(local_.size() < Counters::kClasses, caller, "OnGpu: layers have more than ",
            Counters::kClasses, " sizes of blocks");
    local_.push_back(size_class);
    promised_.push_back(0);
    return static_cast<int>(local_.size()) - 1;
  }

  static std::int64_t sum_of(const std::vector<int>& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  }
  /// The most tokens that all sequences can have got since a report.
  std::int64_t since_report(const Counters& seen) const {
    const auto ahead = static_cast<int>(sent_ - static_cast<unsigned>(seen.brought));
    const std::int64_t replays = std::int64_t{replayed_} * sequences_;
    return std::max<std::int64_t>(0, ahead + replays);  // replays may be reported already
  }

  std::vector<std::int64_t>& bounds(const std::vector<int>& counts, bool seals,
                                    const Counters& seen) {
    // whichever sequences they are of, each begins one block that they do not fill
    const std::int64_t tokens = since_report(seen) + sum_of(counts);
    const std::int64_t since = tokens / kBlockTokens + std::min<std::int64_t>(tokens, sequences_);
    wanted_.assign(local_.size(), 0);
    growth_.assign(local_.size(), {});
    std::int64_t waiting = 0;  // dense blocks of layers that code: what is sealed was in them
    std::array<bool, Counters::kClasses> counted{};
    for (std::size_t layer = 0; layer < sizes_.size(); ++layer) {
      const Sizes& sizes = sizes_[layer];
      const bool coded = habits_[layer].coded;
      // replays seal, and what this pass brings with it
      const Bound bound = ledgers_[layer].during(
          [&](std::size_t at) { return counts[at] + replayed_; }, seals || replayed_ > 0);
      // what waited at the report may be sealed by now as well
      const std::int64_t sealable =
          coded ? (tokens + seen.unsealed) / kBlockTokens +
                      std::int64_t{sequences_} * (habits_[layer].residual / kBlockTokens + 2)
                : 0;
      std::array<int, Counters::kClasses> roles{};
      const auto add = [&](int at, std::int64_t blocks, std::int64_t more, std::int64_t sealed) {
        if (at < 0) return;
        Growth& growth = growth_[static_cast<std::size_t>(at)];
        wanted_[static_cast<std::size_t>(at)] += sizes.heads * blocks;
        growth.came += sizes.heads * more;
        growth.sealed += sizes.heads * sealed;
        if (sealed > 0)
          growth.roles = std::max(growth.roles, ++roles[static_cast<std::size_t>(at)]);
      };
      add(sizes.side, bound.dense + bound.coded, since, sealable);
      add(sizes.dense_keys, bound.dense, since, 0);
      add(sizes.dense_values, bound.dense, since, 0);
      add(sizes.coded_keys, bound.coded, 0, sealable);
      add(sizes.coded_values, bound.coded, 0, sealable);
      if (!coded) continue;
      waiting += sizes.heads * since;
      if (!std::exchange(counted[static_cast<std::size_t>(sizes.dense_keys)], true))
        waiting += seen.in_use[sizes.dense_keys];
    }
    for (std::size_t at = 0; at < wanted_.size(); ++at) {
      const Growth& growth = growth_[at];
      wanted_[at] = std::min(wanted_[at], seen.in_use[at] + growth.came +
                                              std::min(growth.sealed, growth.roles * waiting));
    }
    return wanted_;
  }
  Status promise(const std::vector<std::int64_t>& wanted) {
    changes_.clear();
    for (std::size_t at = 0; at < wanted.size(); ++at)
      changes_.push_back({local_[at], wanted[at] - promised_[at]});
    Status status = pool_.promise(changes_);
    if (status) promised_ = wanted;
    return status;
  }

  Pool<DeviceType>& pool_;
  int sequences_;
  std::vector<Sizes> sizes_;  // by layer
  std::vector<Habit> habits_;
  std::vector<Ledger> ledgers_;
  std::vector<int> local_;  // by size of blocks: the pool's size class
  std::vector<std::int64_t> promised_;
  std::vector<std::int64_t> wanted_;
  std::vector<Growth> growth_;
  std::vector<typename Pool<DeviceType>::Promise> changes_;
  unsigned sent_ = 0;  // as Counters::brought, of the passes that the host began
  int replayed_ = 0;
  std::vector<int> unsealed_;  // [sequences]
  std::vector<bool> mid_prompt_;
};

}  // namespace kvast::gpu
