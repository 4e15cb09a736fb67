// SPDX-License-Identifier: Apache-2.0
// Which part of a policy is asked what, in which layer and when; a policy that is not made of
// others is its own only part. As pass.h does on the host.
#pragma once

#include <algorithm>
#include <vector>

#include "kvast/core/compose.h"
#include "kvast/gpu/rank.cuh"
#include "kvast/host/check_part.h"

namespace kvast::gpu {

namespace detail {

/// Whether a policy ranks tokens one by one, with what the device knows of them.
template <class Policy>
constexpr bool runs_on_device() {
  using kvast::detail::splits;
  if constexpr (splits<Policy, Split::layers>() || splits<Policy, Split::heads>()) {
    return runs_on_device<decltype(Policy::listed)>() && runs_on_device<decltype(Policy::rest)>();
  } else if constexpr (splits<Policy, Split::phases>()) {
    return runs_on_device<decltype(Policy::prefill)>() &&
           runs_on_device<decltype(Policy::decode)>();
  } else {
    constexpr bool kRanks = kvast::detail::RanksTokens<Policy> ||
                            kvast::detail::RanksByHead<Policy> || kvast::detail::Chooses<Policy>;
    return !kvast::detail::evicts<Policy>() ||
           (kRanks && !Policy::needs.vectors && !Policy::needs.query_moments);
  }
}

/// Whether a part wants to see weights, ever.
template <class One>
constexpr bool watches() {
  return kvast::detail::evicts<One>() && One::needs.attention;
}

}  // namespace detail

/// What the open pass is to policies.
struct PassPhase {
  bool in_prompt = false;
  bool ends_prompt = false;
};

/// A cache's policy, and which layers its parts decide for.
template <class Policy>
class PolicyParts {
 public:
  explicit PolicyParts(const Policy& policy) : policy_(policy) {}

  /// Throws Error for what a layer's parts cannot do.
  void add_layer(const ShapeList& shapes, int layer, Caller caller) {
    heads_.push_back(shapes[layer].heads);
    LayerParts& own = own_.emplace_back();
    for (const bool ends_prompt : {false, true}) {
      each_deciding(layer, ends_prompt, [&](const auto& part, const auto& heads) {
        const int head = first_of(heads.of(layer), layer);
        if (head == heads_.back()) return;  // it has none here
        Own& mine = own.of[ends_prompt ? 1 : 0][heads.listed ? 1 : 0];
        mine.any = true;
        mine.layers = kvast::detail::own_layers(policy_, shapes, layer, head, ends_prompt);
        check(part, {.index = layer, .layers = shapes.layers(), .own = &mine.layers}, caller);
      });
    }
  }

  /// body(part, heads) with each, in any layer and phase.
  template <class Body>
  void each(const Body& body) const {
    kvast::detail::each_part(policy_, body);
  }
  /// body(part) with that of a layer, which may be made of others by head and phase.
  template <class Body>
  void of_layer(int layer, const Body& body) const {
    kvast::detail::of_layer(policy_, layer, body);
  }
  /// body(part, heads) with each that is shown a layer's weights. A part that looks back acts at
  /// prompts' ends alone, and looks there alone.
  template <class Body>
  void each_watching(int layer, PassPhase phase, const Body& body) const {
    of_layer(layer, [&](const auto& mine) {
      kvast::detail::each_watcher(mine, phase.in_prompt, [&](const auto& watcher) {
        kvast::detail::each_part(watcher, [&](const auto& part, const auto& heads) {
          using One = std::remove_cvref_t<decltype(part)>;
          if constexpr (detail::watches<One>()) {
            const HeadMask mask = heads.of(layer);
            if (first_of(mask, layer) == heads_[static_cast<std::size_t>(layer)]) return;
            if (!kvast::detail::replays<One>() || phase.ends_prompt) body(part, mask);
          }
        });
      });
    });
  }
  bool is_watched(int layer, PassPhase phase) const {
    bool any = false;
    each_watching(layer, phase, [&](const auto&, const HeadMask&) { any = true; });
    return any;
  }
  /// body(part, asked, first, count) with each that acts in `count` layers from `first` on.
  template <class Body>
  void each_acting(int first, int count, PassPhase phase, const Body& body) const {
    for (int end = first + count; first < end;) {
      int next = first + 1;
      while (next < end && kvast::detail::have_one_part(policy_, first, next)) ++next;
      each_deciding(first, phase.ends_prompt, [&](const auto& part, const auto& heads) {
        using One = std::remove_cvref_t<decltype(part)>;
        if constexpr (kvast::detail::evicts<One>()) {
          const Own own = own_of(first, next, phase.ends_prompt, heads.listed);
          if (!own.any || waits(part, first, phase)) return;
          const Asked<std::remove_cvref_t<decltype(heads)>> asked{
              .heads = heads,
              .when = kvast::detail::when_of(part),
              .layers = layers(),
              .ends_prompt = phase.ends_prompt,
              .some_layers = kvast::detail::Composite<Policy>,
              .own = own.layers};
          body(part, asked, first, next - first);
        }
      });
      first = next;
    }
  }

 private:
  /// Whether a part has a head in a layer, and all layers in which it has.
  struct Own {
    bool any = false;
    LayerSet layers{};
  };
  struct LayerParts {
    Own of[2][2];  ///< [ends a prompt][PartHeads::listed]
  };

  int layers() const { return static_cast<int>(own_.size()); }
  /// The layer's first head of a part; the number of its heads where there is none.
  int first_of(const HeadMask& mask, int layer) const {
    int head = 0;
    while (head < heads_[static_cast<std::size_t>(layer)] && !mask.contains(head)) ++head;
    return head;
  }
  /// Of a part that layers [first, end) have in common; some of them may have no head of it.
  Own own_of(int first, int end, bool ends_prompt, bool listed) const {
    Own own;
    for (int layer = first; layer < end && !own.any; ++layer)
      own = own_[static_cast<std::size_t>(layer)].of[ends_prompt ? 1 : 0][listed ? 1 : 0];
    return own;
  }
  /// body(part, heads) with each that decides for a layer's heads at the end of a pass.
  template <class Body>
  void each_deciding(int layer, bool ends_prompt, const Body& body) const {
    of_layer(layer, [&](const auto& mine) {
      kvast::detail::of_phase(mine, ends_prompt,
                              [&](const auto& phase) { kvast::detail::each_part(phase, body); });
    });
  }
  /// Within a prompt that goes on, nobody of those that share phases out has its turn.
  template <class One>
  bool waits(const One& part, int layer, PassPhase phase) const {
    bool waits = !phase.ends_prompt && kvast::detail::when_of(part).kind == When::Kind::prompt;
    of_layer(layer, [&](const auto& mine) {
      using Mine = std::remove_cvref_t<decltype(mine)>;
      waits = waits || (kvast::detail::splits<Mine, Split::phases>() && phase.in_prompt &&
                        !phase.ends_prompt);
    });
    return waits;
  }
  template <class One>
  static void check(const One& part, const Layer& layer, Caller caller) {
    kvast::detail::check_part(part, layer, caller);
    require(
        !kvast::detail::replays<One>() || kvast::detail::when_of(part).kind == When::Kind::prompt,
        caller, "OnGpu: ", kvast::detail::policy_name<One>(),
        " looks back at earlier queries; on the device it acts at prompts' ends only: "
        "when = When::prompt()");
  }

  Policy policy_;
  std::vector<LayerParts> own_;  ///< [layers]
  std::vector<int> heads_;       ///< [layers] how many there are
};

}  // namespace kvast::gpu
