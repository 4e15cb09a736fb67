// SPDX-License-Identifier: Apache-2.0
// A naive cache in double, which calls nothing of the library: what a policy's definition says must
// be kept.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "tests/policy/script.h"

namespace kvast::test {

/// One kept token of one head.
struct Entry {
  int position = 0;
  double score = 0.0;
  double norm = 0.0;
  double sum = 0.0;              ///< what it received so far
  std::vector<int> important{};  ///< steps that cared
};
using Line = std::vector<Entry>;  // in order of position

/// One query, as the entries of a line saw it.
struct Row {
  int step = 0;
  int visible = 0;
  int generated = 0;              ///< positions since the last prompt's end
  std::vector<double> weights{};  ///< per entry; negative: not seen
};

/// The circumstances of an eviction.
struct Moment {
  int newest = 0;
  int layer = 0;
  bool ends_prompt = false;
  bool more_of_prompt = false;
};

/// A method, as its paper defines it.
class Rules {
 public:
  virtual ~Rules() = default;
  virtual void learn(Line&, const std::vector<Row>&) {}
  /// `heads`: the lines of one layer.
  virtual void evict(std::vector<Line>& heads, const Moment& moment) = 0;
  /// How many queries are learned from anew in each pass, those of earlier passes included; 0: only
  /// this pass's.
  virtual int replayed_window() const { return 0; }
  int line_layer = 0, line_head = 0;  ///< whose line `learn` is given
  double margin =
      1.0;  ///< how near a decision came to going the other way; tests demand that none was near
};

/// Keeps `count` entries: pinned ones first, then by score, of equals the newer.
template <class Pinned>
void keep_best(Line& line, int count, Pinned pinned, double& margin) {
  std::vector<Entry> order = line;
  std::sort(order.begin(), order.end(), [&](const Entry& left, const Entry& right) {
    if (pinned(left) != pinned(right)) return pinned(left);
    if (!pinned(left) && left.score != right.score) return left.score > right.score;
    return left.position > right.position;
  });
  const auto pins = static_cast<std::size_t>(std::count_if(order.begin(), order.end(), pinned));
  const std::size_t cut = std::min(order.size(), std::max(static_cast<std::size_t>(count), pins));
  if (cut > pins && cut < order.size()) {
    const double kept = order[cut - 1].score;
    const double lost = order[cut].score;
    const double gap = std::abs(kept - lost) / std::max(1e-30, std::abs(kept));
    if (kept != lost) margin = std::min(margin, gap);
  }
  order.resize(cut);
  std::sort(order.begin(), order.end(),
            [](const Entry& left, const Entry& right) { return left.position < right.position; });
  line = order;
}

/// Entries to come down to under a budget; -1: nothing happens.
inline int cut_to(When when, int budget, int live, bool ends_prompt) {
  if (live <= budget) return -1;
  if (when.kind == When::Kind::prompt) return ends_prompt ? budget : -1;
  return when.kind == When::Kind::full ? budget - when.batch + 1 : budget;
}

/// When a method without a budget acts.
class Clock {
 public:
  bool due(When when, const Moment& moment) {
    if (when.kind == When::Kind::prompt) return moment.ends_prompt;
    if (when.kind == When::Kind::step) return true;
    if (moment.newest + 1 - tokens_at_last_ < when.batch) return false;
    tokens_at_last_ = moment.newest + 1;
    return true;
  }

 private:
  int tokens_at_last_ = 0;
};

/// Runs rules over a script. `make` gives each layer rules of its own. `replays`: earlier queries
/// are at hand.
class Simulation {
 public:
  template <class Make>
  Simulation(const Script& script, Reduce reduce, bool replays, Make make)
      : script_(script), reduce_(reduce), replays_(replays) {
    for (int layer = 0; layer < script.shape.layers; ++layer) {
      rules_.push_back(make());
      lines_.emplace_back(static_cast<std::size_t>(script.shape.heads));
    }
  }

  void pass(const Turn& turn) {
    const int first = length_;
    length_ += turn.tokens;
    for (int layer = 0; layer < script_.shape.layers; ++layer) {
      const auto at = static_cast<std::size_t>(layer);
      for (int head = 0; head < script_.shape.heads; ++head) {
        Line& line = lines_[at][static_cast<std::size_t>(head)];
        for (int position = first; position < length_; ++position)
          line.push_back({.position = position, .norm = script_.norms(head, position)});
        std::vector<Row> seen = rows(line, head, turn.tokens, rules_[at]->replayed_window());
        for (Row& row : seen) {
          const bool in_prompt = turn.last_of_prompt || turn.more_of_prompt;
          row.generated = in_prompt ? 0 : std::max(0, row.step - prompt_end_ + 1);
        }
        rules_[at]->line_layer = layer;
        rules_[at]->line_head = head;
        rules_[at]->learn(line, seen);
      }
      rules_[at]->evict(lines_[at], {length_ - 1, layer, turn.last_of_prompt, turn.more_of_prompt});
    }
    if (!turn.more_of_prompt) prompt_begins_ = length_;
    if (turn.last_of_prompt) prompt_end_ = length_;
  }
  /// For methods that act at prompts' ends: the vote is the prompt's own.
  void forget_earlier_prompts() { own_prompt_ = true; }

  std::vector<int> kept(int head, int layer) const {
    std::vector<int> positions;
    for (const Entry& entry :
         lines_[static_cast<std::size_t>(layer)][static_cast<std::size_t>(head)])
      positions.push_back(entry.position);
    return positions;
  }
  double margin() const {
    double margin = 1.0;
    for (const auto& rules : rules_) margin = std::min(margin, rules->margin);
    return margin;
  }

 private:
  std::vector<Row> rows(const Line& line, int head, int tokens, int window) const {
    int count = tokens;
    if (window > 0) {
      const int reach = own_prompt_ ? std::max(tokens, length_ - prompt_begins_) : length_;
      count = std::min(window, replays_ ? reach : tokens);
    }
    std::vector<Row> rows;
    for (int step = length_ - count; step < length_; ++step) {
      Row row{.step = step};
      for (const Entry& entry : line) row.visible += entry.position <= step ? 1 : 0;
      row.weights.assign(line.size(), -1.0);
      const int group = script_.shape.group();
      for (int query_head = head * group; query_head < (head + 1) * group; ++query_head)
        add_weights(line, query_head, query_head == head * group, row);
      if (reduce_ == Reduce::mean)
        for (double& weight : row.weights) weight /= group;
      rows.push_back(row);
    }
    return rows;
  }
  void add_weights(const Line& line, int query_head, bool first, Row& row) const {
    double sum = 0.0;
    for (const Entry& entry : line)
      if (entry.position <= row.step)
        sum += std::exp(script_.logits(query_head, row.step, entry.position));
    for (std::size_t at = 0; at < line.size(); ++at) {
      if (line[at].position > row.step) continue;
      const double weight = std::exp(script_.logits(query_head, row.step, line[at].position)) / sum;
      double& joined = row.weights[at];
      if (first) {
        joined = weight;
      } else {
        joined = reduce_ == Reduce::max ? std::max(joined, weight) : joined + weight;
      }
    }
  }

  Script script_;
  Reduce reduce_;
  bool replays_;
  bool own_prompt_ = false;
  std::vector<std::unique_ptr<Rules>> rules_;  ///< [layers]
  std::vector<std::vector<Line>> lines_;       ///< [layers][heads]
  int length_ = 0;
  int prompt_begins_ = 0;
  int prompt_end_ = 0;
};

/// A prompt, a conversation with several tokens at once, a second prompt in chunks, and more steps:
/// 157 positions.
inline std::vector<Turn> conversation() {
  std::vector<Turn> turns{{.tokens = 41, .last_of_prompt = true}};
  turns.insert(turns.end(), 45, Turn{});
  turns.push_back({.tokens = 3});
  turns.insert(turns.end(), 5, Turn{});
  turns.push_back({.tokens = 20, .more_of_prompt = true});
  turns.push_back({.tokens = 14, .last_of_prompt = true});
  turns.insert(turns.end(), 29, Turn{});
  return turns;
}
inline Script conversation_script(std::uint64_t seed,
                                  Shape shape = {.query_heads = 4, .heads = 2}) {
  shape.head_dim = 160;
  shape.value_dim = 8;
  return {.shape = shape, .logits = random_logits(seed)};
}

/// Expects the library to keep what the rules keep, in every head and layer, after every pass.
template <class Storage, class Policy, class Make>
void expect_simulated(const Script& script, const std::vector<Turn>& turns, Policy policy,
                      Make make, std::optional<Reduce> reduce = {}) {
  Run<Policy, Storage> run(script, policy, {.reduce = reduce});
  Simulation simulation(script, reduce.value_or(detail::reduce_of(policy)),
                        !std::is_same_v<Storage, External>, make);
  if (detail::when_of(policy).kind == When::Kind::prompt) simulation.forget_earlier_prompts();
  for (std::size_t turn = 0; turn < turns.size(); ++turn) {
    run.pass(turns[turn]);
    simulation.pass(turns[turn]);
    for (int layer = 0; layer < script.shape.layers; ++layer) {
      for (int head = 0; head < script.shape.heads; ++head) {
        const std::vector<int> kept = run.kept(head, layer);
        ASSERT_EQ(kept, simulation.kept(head, layer))
            << "turn " << turn << ", layer " << layer << ", head " << head << ", margin "
            << simulation.margin();
      }
    }
  }
  EXPECT_GT(simulation.margin(), 3e-5) << "a near tie: choose another seed";
}

}  // namespace kvast::test
