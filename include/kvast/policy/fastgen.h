// SPDX-License-Identifier: Apache-2.0
// FastGen: each head keeps by the cheapest rule that would have served it in the prompt.
#pragma once

#include <cstdint>

#include "kvast/core/check_policy.h"

namespace kvast {

/// At the first prompt's end, every head gets the first of these rules that keeps at least
/// `threshold` of its attention: special tokens; and punctuation; and the most frequent ones; and
/// the newest ones; all. The rule stays. Ref: FastGen, arXiv:2310.01801, Algorithm 1, with the
/// group mean for GQA.   State: 8 bytes per token and head; token kinds come with
/// PassOptions::kinds. The prompt must come in one pass. Lengths: `local` is a part of the prompt,
/// `frequent` of all positions seen. Frequent tokens are chosen among those that no earlier rule
/// keeps, by attention per query that could see them
/// (`by_lifetime`) or by its sum, as the paper has it. The profile counts frequent tokens among the
/// newest too; a head under `local` keeps as many besides them, so rather more than was profiled.
struct FastGen {
  enum class Rule : std::uint8_t { special, punctuation, frequent, local, full };
  enum class Criterion : std::uint8_t {
    mass,  ///< the kept part of the attention reaches the threshold T
    l1     ///< the L1 distance to the renormalised attention is at most 1 - T: mass >= (1 + T) / 2
  };

  float threshold = 0.9F;  ///< T, in (0, 1]
  float frequent = 0.3F;   ///< part of the positions, in [0, 1]
  float local = 0.3F;      ///< part of the prompt, in [0, 1]
  Criterion criterion = Criterion::mass;
  int rows = 0;  ///< newest queries of the prompt that are averaged over; 0: all of them
  bool by_lifetime = true;
  When when = When::step();
  static constexpr Needs needs{.attention = true, .token_kinds = true, .whole_prompt = true};
  struct State {
    float mass = 0.0F;
    bool marked = false;
  };
  /// Attention that each rule would keep, of all.
  struct Profile {
    double mass[5] = {};
  };
  struct Choice {
    Rule rule = Rule::full;
    int window = 0;      ///< newest tokens that the local rule keeps
    float mass[5] = {};  ///< parts that the rules would have kept
  };

  KVAST_HD void observe(State& s, Attention a) const { s.mass += a.weight; }
  KVAST_HD float frequency(Token t, const State& s) const {
    if (t.kind != TokenKind::other) return kDrop;
    return by_lifetime ? s.mass / static_cast<float>(t.age + 1) : s.mass;
  }
  KVAST_HD int marks(int length) const { return part_of(frequent, length, true); }
  KVAST_HD void mark(State& s) const { s.marked = true; }
  KVAST_HD void profile(Profile& sums, Token t, const State& s, Attention a) const {
    if (rows > 0 && a.after >= rows) return;
    const int window = part_of(local, a.step + a.after + 1, false);
    Rule first = Rule::full;
    if (t.kind == TokenKind::special) {
      first = Rule::special;
    } else if (t.kind == TokenKind::punctuation) {
      first = Rule::punctuation;
    } else if (s.marked) {
      first = Rule::frequent;
    } else if (t.age < window) {
      first = Rule::local;
    }
    for (int rule = static_cast<int>(first); rule < 5; ++rule)
      sums.mass[rule] += static_cast<double>(a.weight);
  }
  KVAST_HD Profile merge(Profile left, const Profile& right) const {
    for (int rule = 0; rule < 5; ++rule) left.mass[rule] += right.mass[rule];
    return left;
  }
  KVAST_HD Choice choose(const Profile& sums, int prompt) const {
    Choice choice{.window = part_of(local, prompt, false)};
    const double wanted = criterion == Criterion::mass
                              ? static_cast<double>(threshold)
                              : (1.0 + static_cast<double>(threshold)) / 2.0;
    int rule = static_cast<int>(Rule::full);
    for (int at = 4; at >= 0; --at) {
      choice.mass[at] = static_cast<float>(sums.mass[at] / sums.mass[4]);
      // a total that is zero or no number says nothing: then all stay
      const bool known = is_finite(sums.mass[4]) && sums.mass[4] > 0.0;
      if (known && sums.mass[at] >= wanted * sums.mass[4]) rule = at;
    }
    choice.rule = static_cast<Rule>(rule);
    return choice;
  }
  KVAST_HD float rank(Token t, const State& s, const Choice& choice) const {
    if (choice.rule == Rule::full || t.kind == TokenKind::special) return kPin;
    if (choice.rule >= Rule::punctuation && t.kind == TokenKind::punctuation) return kPin;
    if (choice.rule >= Rule::local && t.age < choice.window) return kPin;
    return choice.rule >= Rule::frequent ? frequency(t, s) : kDrop;
  }
  /// Tokens that may stay for their frequency.
  KVAST_HD int room(const Choice& choice, int length) const {
    return choice.rule == Rule::full || choice.rule < Rule::frequent ? 0 : marks(length);
  }
  void validate(Caller caller) const {
    require(threshold > 0.0F && threshold <= 1.0F, caller, "FastGen.threshold is ", threshold,
            ", must lie in (0, 1]");
    require(frequent >= 0.0F && frequent <= 1.0F, caller, "FastGen.frequent is ", frequent,
            ", must lie in [0, 1]");
    require(local >= 0.0F && local <= 1.0F, caller, "FastGen.local is ", local,
            ", must lie in [0, 1]");
    require(criterion <= Criterion::l1, caller, "FastGen.criterion is ",
            static_cast<int>(criterion), ", must be mass or l1");
    require(rows >= 0, caller, "FastGen.rows is ", rows, ", must be at least 0");
  }

 private:
  /// ceil(part * length), or at least 1 and floor(part * length); never above `length`. `part` is a
  /// float, and may lie a little beside what was meant: up to a quarter of a token is forgiven.
  KVAST_HD static int part_of(float part, int length, bool up) {
    const double exact = static_cast<double>(part) * static_cast<double>(length);
    const double meant = 1e-6 * static_cast<double>(length);
    const double slack = meant < 0.25 ? meant : 0.25;
    const auto most = static_cast<std::int64_t>(length);
    auto count = static_cast<std::int64_t>(exact + slack);
    if (up && static_cast<double>(count) + slack < exact) ++count;
    if (!up && count < 1) count = 1;
    return static_cast<int>(count < most ? count : most);
  }
};
static_assert(check_policy<FastGen>());

}  // namespace kvast
