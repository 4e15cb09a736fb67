// SPDX-License-Identifier: Apache-2.0
// The policy contract: plain values with pure per-token functions. The engine owns loops, memory
// and launches.
#pragma once

#include <cstdint>
#include <span>

#include "kvast/core/numeric.h"
#include "kvast/core/sets.h"

namespace kvast {

/// What the engine must compute for a policy. What nobody asks for does not exist.
struct Needs {
  bool attention = false;      ///< observe() is called with the weights of queries
  bool key_norms = false;      ///< Token::key_norm is filled, L2 norm of the key as it arrived
  bool token_kinds = false;    ///< Token::kind is filled from PassOptions::kinds
  bool vectors = false;        ///< HeadView::keys and values are filled, decoded as they are stored
  bool query_moments = false;  ///< HeadView::query_means and query_covariances are filled at a
                               ///< prompt's end, of positions from `int moments_from() const` on
  bool whole_prompt = false;   ///< a prompt must come in one pass; chunks are refused

  /// What policies need together.
  friend constexpr Needs operator|(Needs left, Needs right) {
    return {.attention = left.attention || right.attention,
            .key_norms = left.key_norms || right.key_norms,
            .token_kinds = left.token_kinds || right.token_kinds,
            .vectors = left.vectors || right.vectors,
            .query_moments = left.query_moments || right.query_moments,
            .whole_prompt = left.whole_prompt || right.whole_prompt};
  }
};

/// What a token is to the tokenizer; FastGen-like rules read it.
enum class TokenKind : std::uint8_t { other, special, punctuation };

/// One live token of one head, as `rank` sees it.
struct Token {
  int position = 0;  ///< in the sequence; never changes
  int age = 0;       ///< newest position minus this one: where positions have gaps, more than the
                     ///< number of newer tokens
  int layer = 0;
  int head = 0;  ///< kv head
  float key_norm = 0.0F;
  TokenKind kind = TokenKind::other;
};

/// One token's part in one query's attention, as `observe` sees it.
struct Attention {
  float weight = 0.0F;  ///< in [0, 1], reduced over the group's query heads (see Reduce)
  int visible = 0;      ///< tokens of this head that the query could see, itself included
  int step = 0;         ///< position of the query
  int row = 0;          ///< 0 for the first query observed in this pass
  int after = 0;        ///< later queries of this pass
  int generated = 0;    ///< positions since the last prompt's end; 0 in a prompt, then 1, 2, ...
};

/// A layer, as `budget` sees it: at construction, when nothing was seen yet, and after every pass.
struct Layer {
  int index = 0;
  int layers = 1;
  int seen = 0;  ///< tokens of the sequence so far, evicted ones included; 0: more than any budget
  const LayerSet* own = nullptr;  ///< those that the policy decides for (see PerLayer); null: all

  /// Whether the policy decides for another layer as well. A set ends at 256: beyond, it does.
  KVAST_HD constexpr bool decides(int layer) const {
    return own == nullptr || layer >= LayerSet::kMost || own->contains(layer);
  }
  /// Another layer of the same model, at the same time.
  KVAST_HD constexpr Layer at(int layer) const { return {layer, layers, seen, own}; }
};

/// Landmarks of `rank`. They are finite, so that they survive -ffast-math. A policy with a budget
/// acts only on heads that exceed it; one without acts whenever its `when` says.
inline constexpr float kPin = 3.402823466e+38F;    ///< never evicted, whatever the budget
inline constexpr float kDrop = -3.402823466e+38F;  ///< goes whenever the policy acts

/// Tokens that a policy may keep per head; negative: no limit.
struct Budget {
  int tokens = -1;
  bool cap = false;  ///< ranks decide whether or not it is exceeded; it only bounds what they keep
  KVAST_HD constexpr bool limited() const { return tokens >= 0; }
};
KVAST_HD constexpr Budget tokens(int count) { return {count}; }
KVAST_HD constexpr Budget at_most(int count) { return {count, true}; }
inline constexpr Budget kNoBudget{};

/// Tokens that a policy pins in any long head, by position: where positions have gaps or do not
/// begin at 0, they are fewer.
struct Pins {
  int first = 0;   ///< positions below it
  int newest = 0;  ///< ages below it
  KVAST_HD constexpr std::int64_t count() const { return std::int64_t{first} + newest; }
};

/// When a policy acts.
struct When {
  enum class Kind : std::uint8_t {
    step,    ///< after every pass
    prompt,  ///< once, at a prompt's end; what is generated then only grows
    full  ///< when the budget is exceeded, `batch` tokens below it at once; without a budget every
          ///< `batch` tokens
  };
  Kind kind = Kind::step;
  int batch = 1;

  KVAST_HD static constexpr When step() { return {Kind::step, 1}; }
  KVAST_HD static constexpr When prompt() { return {Kind::prompt, 1}; }
  KVAST_HD static constexpr When full(int batch) { return {Kind::full, batch}; }
};

/// How the weights of a group's query heads become the one weight of their head. `max` over a
/// threshold is "any".
enum class Reduce : std::uint8_t { mean, sum, max };

/// What the parts of a policy made of others share out among them (see PerLayer,
/// PrefillThenDecode, PerHead).
enum class Split : std::uint8_t { layers, phases, heads };

/// Whether each head keeps its own tokens, or a layer's heads keep one set, ranked by the mean of
/// their ranks.
enum class Scope : std::uint8_t { head, layer };

/// Smoothing of ranks along the sequence before selection (SnapKV). Pinned tokens take no part;
/// beyond the ends `average` reads zeros and `maximum` nothing, as the authors' pooling does.
struct Pooling {
  enum class Kind : std::uint8_t { average, maximum };
  int width = 1;  ///< odd; 1: none
  Kind kind = Kind::average;
};

/// How the heads of a layer share heads * budget tokens, where a policy has `Allocation
/// allocation() const`. Each head keeps its pins.
struct Allocation {
  enum class Kind : std::uint8_t {
    blend,  ///< a head's share of the layer's best tokens, mixed with the even share (Ada-KV)
    floor   ///< each head's best first, then the layer's best (kvpress)
  };
  float safeguard = 0.2F;  ///< the part that is shared evenly, in [0, 1]
  Kind kind = Kind::blend;
};

struct Rope;

/// A head as a whole-head policy sees it: live tokens in order of position, their states, and the
/// tokens to come down to (negative: no budget). With Needs::vectors also keys [tokens, head_dim]
/// and values [tokens, value_dim].
template <class State>
struct HeadView {
  std::span<const Token> tokens;
  std::span<State> states;  ///< what is written here stays with the tokens that stay
  int budget = -1;
  std::span<const float> keys;
  std::span<const float> values;
  int head_dim = 0;
  int value_dim = 0;
  std::span<const float>
      query_means{};  ///< [group, head_dim], times the softmax's scale, unrotated
  std::span<const float> query_covariances{};  ///< [group, head_dim, head_dim]
  const Rope* rope = nullptr;                  ///< CacheOptions::rope, with query_moments
};

/// Whether `number` is neither NaN nor an infinity, by its bits: -ffast-math cannot break it.
KVAST_HD constexpr bool is_finite(double number) {
  return (bits_as<std::uint64_t>(number) >> 52U & 0x7FFU) != 0x7FFU;
}

inline constexpr std::int32_t kPinKey = 0x7F7FFFFF;    ///< rank_key(kPin)
inline constexpr std::int32_t kDropKey = -0x7F7FFFFF;  ///< rank_key(kDrop)

/// Orders ranks as integers: the same bits on every backend, and -ffast-math cannot break it. NaN
/// ranks lowest of all that may be kept, as minus infinity does; infinity ranks highest of all that
/// may go: a sum that overflowed must not pin a token and break a budget.
KVAST_HD constexpr std::int32_t rank_key(float rank) {
  const auto bits = bits_as<std::uint32_t>(rank);
  const auto magnitude = static_cast<std::int32_t>(bits & 0x7FFFFFFFU);
  constexpr std::int32_t kInfinite = 0x7F800000;
  // selects without branches, as this stands in loops over all tokens
  const std::int32_t number = magnitude >= kInfinite ? kPinKey - 1 : magnitude;
  const bool low = static_cast<std::int32_t>(bits) < 0 || magnitude > kInfinite;
  return low ? -number : number;
}
}  // namespace kvast
