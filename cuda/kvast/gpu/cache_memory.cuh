// SPDX-License-Identifier: Apache-2.0
// The device memory of one cache, and what the host knows of it.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "kvast/gpu/append.cuh"
#include "kvast/gpu/attend_rows.cuh"
#include "kvast/gpu/cache_tables.cuh"
#include "kvast/gpu/commit.cuh"
#include "kvast/gpu/pass.cuh"
#include "kvast/gpu/reserves.cuh"

namespace kvast::gpu {

/// Tables, lengths and counters in device memory, block bounds on the host, and the state of the
/// open pass. What it does not know is which policy and which formats there are.
template <class DeviceType>
class CacheMemory {
 public:
  using PoolType = Pool<DeviceType>;

  CacheMemory(PoolType& pool, int sequences)
      : pool_(pool),
        tables_(pool),
        reserves_(pool, sequences),
        sequences_(sequences),
        lengths_(static_cast<std::size_t>(sequences)),
        prompted_(lengths_.size()),
        counts_(lengths_.size()) {}
  CacheMemory(const CacheMemory&) = delete;
  CacheMemory& operator=(const CacheMemory&) = delete;
  ~CacheMemory() {
    if (exists()) {
      if (!give_all()) reserves_.abandon();
      (void)DeviceType::wait(pool_.stream());  // the report's copy may be on its way
    }
  }

  /// `view` has its dimensions and the bytes of its coded payloads.
  void add_layer(LayerView view, const Habit& habit, Caller caller) {
    view.sequences = sequences_;
    view.side.bytes = static_cast<std::int64_t>(view.layout.bytes);
    if (view.ranks_at != 0)
      view.side.bytes = view.ranks_at + kBlockTokens * static_cast<std::int64_t>(sizeof(float));
    view.dense_keys.bytes = std::int64_t{view.dense_key_bytes} * kBlockTokens;
    view.dense_values.bytes = std::int64_t{view.dense_value_bytes} * kBlockTokens;
    reserves_.add_layer(view, habit, caller);
    most_tables_ = std::max(most_tables_, view.tables());
    codes_ = codes_ || habit.coded;
    views_.push_back(view);
    stages_.push_back(Stage::idle);
  }
  void set_rope(const Rope& rope) { rope_ = rope; }

  PoolType& pool() const { return pool_; }
  int layers() const { return static_cast<int>(views_.size()); }
  int sequences() const { return sequences_; }
  int length(int sequence) const { return lengths_.at(static_cast<std::size_t>(sequence)); }
  /// Whether a prompt of the sequence has ended.
  bool prompted(int sequence) const { return prompted_.at(static_cast<std::size_t>(sequence)); }
  bool mid_prompt(int sequence) const { return reserves_.mid_prompt(sequence); }
  const LayerView& view(int layer) const { return views_.at(static_cast<std::size_t>(layer)); }
  const Rope& slot_rope() const { return rope_; }  ///< of compacted positions
  SlotRope rope() const {
    return {.angles = tables_.angles,
            .width = rope_.width,
            .pairing = rope_.pairing,
            .scale = rope_.scale};
  }
  QueryRope query_rope() const {
    return {.frequencies = tables_.frequencies,
            .width = rope_.width,
            .pairing = rope_.pairing,
            .scale = rope_.scale};
  }
  bool exists() const { return tables_.exist(); }
  bool open() const { return open_; }
  /// Of the pass that is open, or was last.
  std::uint64_t number() const { return number_; }
  /// A pass that began before a capture cannot go on within it, nor the other way round.
  void check_capture(Caller caller) const {
    require(DeviceType::capturing(pool_.stream()) == captured_, caller, "pass: it began ",
            captured_ ? "within a capture that is over" : "before the capture");
  }
  bool ends_prompt() const { return ends_prompt_; }
  /// Whether the open pass is a part of a prompt.
  bool in_prompt() const { return ends_prompt_ || !seals_; }
  bool torn() const { return torn_; }
  /// Heads of the layer that has most, times sequences.
  int most_tables() const { return most_tables_; }
  /// Blocks that each list has room for.
  int list_capacity() const { return tables_.capacity(); }
  /// New tokens of all sequences, and of the one that has most.
  int rows() const { return std::accumulate(counts_.begin(), counts_.end(), 0); }
  int most_rows() const { return *std::max_element(counts_.begin(), counts_.end()); }

  void check(int sequence, int layer, int head, Caller caller) const {
    require(sequence >= 0 && sequence < sequences_, caller, "sequence is ", sequence,
            ", must lie in [0, ", sequences_, ")");
    require(layer >= 0 && layer < layers(), caller, "layer is ", layer, ", must lie in [0, ",
            layers(), ")");
    require(head >= 0 && head < view(layer).head_count, caller, "head is ", head,
            ", must lie in [0, ", view(layer).head_count, ")");
  }

  /// The pass seals tokens at its end, or ends a prompt.
  Status begin(int tokens, std::span<const int> counts, bool seals, bool ends_prompt,
               Caller caller) {
    require(counts.empty() || std::ssize(counts) == sequences_, caller, "begin: counts has ",
            counts.size(), " entries, the cache has ", sequences_, " sequences");
    std::vector<int>& next = next_counts_;
    next.assign(lengths_.size(), tokens);
    if (!counts.empty()) next.assign(counts.begin(), counts.end());
    check_counts(lengths_, next, caller);
    if (latest().missing > 0) {
      torn_ = true;
      return {StatusCode::device_failed, "begin: a kernel found no free block; clear the cache"};
    }
    if (torn_) return torn_status("begin");
    captured_ = DeviceType::capturing(pool_.stream());
    require(
        !captured_ || reserves_.replayed() > 0, caller,
        "begin: the stream is capturing; run such a pass, and reserve() for its replays, first");
    if (!captured_) {
      if (Status status = provide(next, seals); !status) return status;
    }
    // always: a captured pass must bring its own counts, whatever ran between its replays
    if (Status status = gpu::send_rows<DeviceType>(tables_.rows, next, pool_.stream()); !status)
      return status;
    counts_ = next;
    seals_ = seals;
    ends_prompt_ = ends_prompt;
    committed_ = 0;
    open_ = true;
    ++number_;
    return {};
  }

  /// For `tokens` more tokens to each sequence; how many replays have run settle() learns.
  Status reserve(int tokens, Caller caller) {
    require(tokens >= 0 && tokens <= (1 << 20), caller, "reserve: tokens is ", tokens,
            ", must lie in [0, 2^20]");
    require(!open_, caller, "reserve: a pass is open");
    check_no_capture("reserve", caller);
    if (torn_) return torn_status("reserve");
    const int before = reserves_.replayed();
    const int longest = *std::max_element(lengths_.begin(), lengths_.end());
    require(std::int64_t{longest} + before + tokens < (1 << 30), caller, "reserve: ", tokens,
            " tokens to ", before, " that were reserved since settle() and ", longest,
            " positions, there are 2^30");
    reserves_.expect_replays(before + tokens);
    next_counts_.assign(lengths_.size(), 1);  // and the pass that is captured: it must not grow
    Status status = provide(next_counts_, true);
    if (!status) reserves_.expect_replays(before);
    return status;
  }

  /// What reserve() asked for, and no more can be done with.
  void take_back_reserve(int tokens) { reserves_.expect_replays(reserves_.replayed() - tokens); }

  /// Learns what replays of a captured pass did, which are over unless they `go_on`. Waits.
  Status settle(bool go_on = false) {
    if (!exists()) return {};
    typename CacheTables<DeviceType>::Copy host;
    if (Status status = tables_.read(host, latest_); !status) return status;
    reserves_.settle(host.lengths, host.unsealed, latest_, go_on);
    lengths_ = host.lengths;
    for (std::size_t at = 0; at < lengths_.size(); ++at) prompted_[at] = host.prompt_ends[at] > 0;
    return {};
  }
  void check_no_capture(const char* verb, Caller caller) const {
    require(!DeviceType::capturing(pool_.stream()), caller, verb, ": the stream is capturing");
  }
  /// What waits for the stream cannot be a part of a capture.
  void check_read(int sequence, int layer, int head, Caller caller) const {
    check(sequence, layer, head, caller);
    check_no_capture("what is read back", caller);
  }

  void expect(int layer, Stage stage, const char* verb, Caller caller) const {
    require(layer >= 0 && layer < layers(), caller, "layer is ", layer, ", must lie in [0, ",
            layers(), ")");
    const Stage last = stages_[static_cast<std::size_t>(layer)];
    require(last == stage, caller, verb, ": out of order for layer ", layer, ": the last call was ",
            name_of(last), ", needed is ", name_of(stage));
  }
  /// After a verb that launched kernels.
  Status did(int layer, Status status, Stage stage = Stage::appended) {
    torn_ = torn_ || (!status && !captured_);
    stages_[static_cast<std::size_t>(layer)] = stage;
    return status;
  }

  /// kernels(scope, seals) for layers [first, first + count).
  template <class Kernels>
  Status commit(int first, int count, const Kernels& kernels) {
    bool coded = false;
    for (int layer = first; layer < first + count; ++layer) {
      stages_[static_cast<std::size_t>(layer)] = Stage::committed;
      coded = coded || reserves_.codes(layer);
    }
    committed_ += count;
    const CommitScope scope{.place = {tables_.views + first, most_tables_},
                            .turns = tables_.turns + std::ptrdiff_t{first} * most_tables_,
                            .sealed = tables_.sealed,
                            .layers = count,
                            .sequences = sequences_,
                            .sealable = reserves_.unsealed() + most_rows()};
    Status status = kernels(scope, coded && seals_);
    if (committed_ == layers()) status.then([&] { return finish(); });
    if (!status) {
      torn_ = !captured_;
      close();
    }
    return status;
  }

  /// The pass never was, unless something of it is final already.
  void drop() {
    if (!open_) return;
    if (captured_) return close();  // nothing of it was done
    torn_ = torn_ || committed_ > 0 || DeviceType::capturing(pool_.stream()) ||
            std::find(stages_.begin(), stages_.end(), Stage::observed) != stages_.end();
    for (int layer = 0; layer < layers() && !torn_; ++layer) {
      if (stages_[static_cast<std::size_t>(layer)] == Stage::idle) continue;
      const Status status =
          DeviceType::launch(TakeBack{view(layer)}, {view(layer).tables(), 0}, pool_.stream());
      torn_ = torn_ || !status;
    }
    close();
  }

  Status clear(int sequence, Caller caller) {
    check(sequence, 0, 0, caller);
    check_no_capture("clear", caller);
    require(!open_ && !torn_, caller, "clear: a pass is open, or the cache is torn: clear it all");
    if (!exists()) return {};
    Status status;
    for (int layer = 0; layer < layers(); ++layer)
      status.then([&] { return give(layer, sequence, view(layer).head_count); });
    status.then([&] { return forget(sequence, 1); });
    torn_ = !status;
    return status;
  }
  Status clear() {
    if (exists()) {
      const bool unknown =  // how far the device came, or how many replays there were
          std::exchange(torn_, true) || latest().missing > 0 || reserves_.replayed() > 0;
      Status status = give_all();
      status.then([&] { return forget(0, sequences_); });
      if (unknown) {
        status.then([&] {
          return DeviceType::fill(&tables_.counters->missing, 0, sizeof(int), pool_.stream());
        });
        status.then([&] { return settle(); });
      }
      if (!status) return status;
    }
    close();
    torn_ = false;
    return {};
  }

  Status read_head(int sequence, int layer, int head, Head& to, Caller caller) {
    check_read(sequence, layer, head, caller);
    to = {};
    if (!exists()) return {};
    const LayerView& mine = view(layer);
    Status status = DeviceType::copy(&to, mine.heads + sequence * mine.head_count + head,
                                     sizeof(Head), pool_.stream());
    return status ? DeviceType::wait(pool_.stream()) : status;
  }
  /// launch(scratch), then `bytes` of the scratch to the host. Waits.
  template <class Launch>
  Status with_scratch(std::size_t bytes, void* to, const Launch& launch) {
    if (!exists()) return {};
    return pool_.with_scratch(bytes, to, launch);
  }
  Result<std::size_t> bytes_in_use(Caller caller) {
    check_no_capture("bytes_in_use", caller);
    Counters now;
    if (exists()) {
      Status status = DeviceType::copy(&now, tables_.counters, sizeof now, pool_.stream());
      status.then([&] { return DeviceType::wait(pool_.stream()); });
      if (!status) return status;
    }
    return tables_.bytes() + reserves_.bytes(now);
  }
  /// The newest report of the device that is complete.
  const Counters& latest() {
    tables_.look_at_report(latest_);
    return latest_;
  }

 private:
  template <class>
  friend class SequenceTransfer;

  static Status torn_status(const char* verb) {
    return {StatusCode::device_failed,
            kvast::detail::join_text(verb, ": an earlier pass tore the cache; clear it")};
  }

  /// Tables and blocks for a pass that brings `counts`; where it fails nothing has changed.
  Status provide(const std::vector<int>& counts, bool seals) {
    if (!exists()) {
      const Status status = tables_.make(views_, most_tables_, rope_, [this](LayerView& view) {
        reserves_.link(view, tables_.counters);
      });
      if (!status) return status;
    }
    if (Status status = reserves_.provide(counts, seals, latest()); !status) return status;
    std::int64_t most = 0;
    for (std::size_t at = 0; at < counts.size(); ++at)
      most = std::max<std::int64_t>(most, std::int64_t{lengths_[at]} + counts[at]);
    most = blocks_of(most + reserves_.replayed()) + 1;
    return tables_.widen(static_cast<int>(reserves_.most_blocks(counts, latest_, most)), codes_);
  }

  Status finish() {
    const auto stream = pool_.stream();
    Status status =
        DeviceType::launch(EndPass{.lengths = tables_.lengths,
                                   .prompt_ends = ends_prompt_ ? tables_.prompt_ends : nullptr,
                                   .unsealed = tables_.unsealed,
                                   .rows = tables_.rows,
                                   .sequences = sequences_,
                                   .seals = seals_,
                                   .counters = tables_.counters},
                           {1, EndPass::kSharedBytes}, stream);
    status.then([&] {
      return DeviceType::copy(tables_.report, tables_.counters, sizeof(Counters), stream);
    });
    if (!status) return status;
    if (!captured_) {  // nothing has happened yet: replays do it
      reserves_.advance(counts_, seals_);
      for (std::size_t at = 0; at < lengths_.size(); ++at) {
        lengths_[at] += counts_[at];
        prompted_[at] = prompted_[at] || (ends_prompt_ && counts_[at] > 0);
      }
    }
    close();
    return {};
  }
  void close() {
    std::fill(stages_.begin(), stages_.end(), Stage::idle);
    open_ = false;
  }

  Status give(int layer, int first_sequence, int tables) {
    return DeviceType::launch(ClearHeads{view(layer), first_sequence}, {tables, 0}, pool_.stream());
  }
  Status give_all() {
    for (int layer = 0; layer < layers(); ++layer) {
      if (Status status = give(layer, 0, view(layer).tables()); !status) return status;
    }
    return {};
  }
  Status forget(int first, int count) {
    for (int sequence = first; sequence < first + count; ++sequence) {
      lengths_[static_cast<std::size_t>(sequence)] = 0;
      prompted_[static_cast<std::size_t>(sequence)] = false;
      reserves_.forget(sequence);
    }
    return tables_.forget(first, count);
  }

  PoolType& pool_;
  CacheTables<DeviceType> tables_;
  Reserves<DeviceType> reserves_;
  int sequences_;
  std::vector<int> lengths_;  ///< [sequences] positions
  std::vector<bool> prompted_;
  std::vector<int> counts_;  ///< [sequences] of the pass that is open, or of the last one
  std::vector<int> next_counts_;
  Rope rope_{};
  int most_tables_ = 1;
  bool codes_ = false;

  std::vector<LayerView> views_;
  std::vector<Stage> stages_;
  Counters latest_;
  int committed_ = 0;  ///< layers
  bool seals_ = true;
  bool ends_prompt_ = false;
  bool captured_ = false;
  std::uint64_t number_ = 0;
  bool open_ = false;
  bool torn_ = false;
};

}  // namespace kvast::gpu
