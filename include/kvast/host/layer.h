// SPDX-License-Identifier: Apache-2.0
// A layer of a cache: its heads, and what a pass has done to it so far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

#include "kvast/core/pass_options.h"
#include "kvast/host/evict.h"
#include "kvast/host/moments.h"

namespace kvast {

/// How far a pass is with a layer.
enum class Stage : std::uint8_t { idle, appended, attended, committed };

/// The last queries of earlier passes, for policies that replay them: `[positions, query_heads,
/// head_dim]`, scaled.
struct QueryRing {
  std::vector<float> queries;
  std::vector<int> positions;
};

/// A layer's policy states as they were before the open pass observed: what a dropped pass goes
/// back to. Layers that commit one by one hand the same memory on, and find it in the processor's
/// cache.
struct StatesBefore {
  std::vector<std::byte> states;         ///< [blocks of all heads, 32, state]
  std::vector<std::size_t> first_block;  ///< [heads] of `states`
};

/// What a policy that looks at each head once (FastGen) chose: a Choice per head, as bytes.
struct Choices {
  std::size_t size = 0;  ///< of one; 0: the layer's policy chooses nothing
  std::vector<std::byte> values;
  std::vector<std::byte> fresh;  ///< values before any was made
  std::vector<bool> made;        ///< [heads] the first prompt's end decides

  template <class Choice>
  void reset(std::size_t heads) {
    static_assert(std::is_trivially_copyable_v<Choice> && alignof(Choice) <= 16);
    size = sizeof(Choice);
    values.resize(heads * size);
    made.assign(heads, false);
    for (std::size_t head = 0; head < heads; ++head) new (values.data() + head * size) Choice{};
    fresh = values;
  }
  void forget() {
    values = fresh;
    made.assign(made.size(), false);
  }
  template <class Choice>
  Choice& at(int head) {
    return reinterpret_cast<Choice*>(values.data())[head];
  }
  template <class Choice>
  const Choice& at(int head) const {
    return reinterpret_cast<const Choice*>(values.data())[head];
  }
};

/// When a head's policy acts, and down to what.
struct HeadTurn {
  LayerSet own[2];    ///< layers of the part that acts within, and at the end of a prompt
  Budget budget;      ///< of the open pass
  int last_act = -1;  ///< position at which a policy without budget acted last
};

struct LayerState {
  LayerPlan plan;
  bool evicts = false;          ///< whether the layer's policy can
  std::vector<HeadTurn> turns;  ///< [heads]
  std::vector<Head> heads;
  Stage stage = Stage::idle;
  bool observed = false;  ///< the states changed in this pass, `before` holds the old ones
  StatesBefore before;
  QueryRing ring;
  QueryRing pending_ring;               ///< becomes `ring` at the commit
  QueryMoments moments;                 ///< of the open pass, where the policy needs them
  std::vector<double> query_energies;   ///< [heads, head_dim] of a prompt that ends, where the
                                        ///< storage chooses channels by them
  std::vector<std::uint16_t> channels;  ///< [heads, sealed_channels] what heads chose
  Choices choices;
  Choices pending_choices;               ///< become `choices` at the commit
  std::vector<std::vector<Move>> moves;  ///< [heads] of the last commit

  int blocks() const {
    int count = 0;
    for (const Head& head : heads) count += head.blocks();
    return count;
  }
};

}  // namespace kvast
