// SPDX-License-Identifier: Apache-2.0
// KVCache<Policy, Storage>: the only stateful class. Who stays is the policy's, how it is kept the
// storage's.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/core/pass_options.h"
#include "kvast/core/status.h"
#include "kvast/core/view.h"
#include "kvast/host/append.h"
#include "kvast/host/attend.h"
#include "kvast/host/check_part.h"
#include "kvast/host/commit.h"
#include "kvast/host/gather.h"
#include "kvast/host/learn.h"
#include "kvast/host/reserve.h"
#include "kvast/storage/weightless.h"

namespace kvast {

namespace detail {
struct CacheAccess;  // for conversions between backends
}

/// The keys and values of one sequence, for all layers of a model, kept small while a transformer
/// decodes. One thread uses a cache at a time; different caches are independent, also on one pool.
/// The pool must outlive it. Misuse throws Error before anything changed; an exhausted pool is a
/// Status, and the cache is as it was. After warm-up a step allocates nothing but pool blocks (when
/// they act, policies that rank a whole head or share budgets allocate as well).
/// `Arch` is chosen by the compiler's flags; leave it alone.
template <class PolicyType, class StorageType, class Arch = Simd>
class KVCache {
  static_assert(check_policy<PolicyType>());
  static_assert(Storage<StorageType>,
                "kvast storage: must have plan<Simd>(layer) and validate(caller)");
  static_assert(
      detail::has_its_weights<PolicyType, StorageType>(),
      "kvast: this policy needs attention, and the engine gives none (Weightless): take a "
      "policy that does without, as StreamingLLM, L2Norm and KeyDiff do");
  static constexpr bool kObserves = PolicyType::needs.attention;

 public:
  using Policy = PolicyType;
  class Pass;

  /// `shape` is one Shape or a list of runs of layers. Throws Error for impossible shapes and
  /// settings.
  KVCache(const ShapeList& shape, Policy policy, StorageType storage, BlockPool& pool,
          CacheOptions options = {}, Caller caller = Caller::here())
      : policy_(policy),
        storage_(storage),
        reduce_(options.reduce),
        positions_(options.positions),
        executor_(options.executor),
        rope_(options.positions == Positions::compacted ? options.rope : Rope{}),
        levels_(options.positions == Positions::unrotated ? options.rope : Rope{}),
        model_rope_(Policy::needs.query_moments ? options.rope : Rope{}),
        account_(std::make_unique<Account>(pool)) {
    if constexpr (requires { policy.validate(caller); }) policy.validate(caller);
    storage.validate(caller);
    require(!reduce_ || *reduce_ <= Reduce::max, caller, "options.reduce is ",
            reduce_ ? static_cast<int>(*reduce_) : 0, ", must be mean, sum or max");
    if constexpr (requires { storage.validate_shape(shape, caller); })
      storage.validate_shape(shape, caller);
    const bool rotates = positions_ != Positions::original;
    require(options.rope.empty() ? !rotates : rotates || Policy::needs.query_moments, caller,
            "options.rope must be given with Positions::compacted and unrotated, and only then, or "
            "where the policy needs it");
    detail::validate_shape(policy, shape, caller);
    layers_.resize(static_cast<std::size_t>(shape.layers()));
    for (int layer = 0; layer < shape.layers(); ++layer) {
      if (!options.rope.empty()) options.rope.validate(shape[layer].head_dim, caller);
      detail::of_layer(policy_, layer, [&](const auto& mine) {
        plan_layer(mine, {layer, shape.layers()}, shape, caller);
      });
    }
  }
  KVCache(KVCache&&) = default;  // not while a pass is open
  KVCache& operator=(KVCache&&) = delete;
  ~KVCache() {
    if (account_ != nullptr) free_blocks();
  }

  /// Opens a pass and reserves all it can need, in all layers; a Status says why that cannot be
  /// had. One at a time.
  Result<Pass> begin(const PassOptions& options, Caller caller = Caller::here());

  /// A second cache with the same tokens. Payload is shared until one of the two writes to it.
  Result<KVCache> fork(Caller caller = Caller::here());

  /// Forgets everything, a torn pass included.
  void clear() {
    free_blocks();
    for (LayerState& layer : layers_) {
      layer.ring = {};
      layer.choices.forget();
      for (HeadTurn& turn : layer.turns) turn.last_act = -1;
      for (Head& head : layer.heads) head.channels = nullptr;
      layer.stage = Stage::idle;
      layer.observed = false;
    }
    length_ = 0;
    seen_ = 0;
    prompt_begin_ = 0;
    prompt_end_ = 0;
    ++generation_;
    state_ = Open::none;
  }

  int layers() const { return static_cast<int>(layers_.size()); }
  const Shape& shape(int layer, Caller caller = Caller::here()) const {
    return checked(layer, caller).plan.shape;
  }
  const Policy& policy() const { return policy_; }
  /// The basis in which a layer's values are kept: for engines that fold it into their output
  /// projection (host/fold.h).
  const Basis& value_basis(int layer, Caller caller = Caller::here()) const {
    return checked(layer, caller).plan.value_basis;
  }
  /// Positions seen: the next token's position. Not the number of tokens kept.
  int length() const { return length_; }
  /// Live tokens of a head.
  int tokens(int layer, int head, Caller caller = Caller::here()) const {
    return checked(layer, head, caller).live();
  }
  /// Positions of a head's live tokens, ascending.
  std::vector<int> kept(int layer, int head, Caller caller = Caller::here()) const {
    std::vector<Place> order;
    order_tokens(checked(layer, head, caller), order);
    std::vector<int> positions;
    for (const Place& place : order) positions.push_back(place.position);
    return positions;
  }
  /// Position of the token in each slot, or -1 where a slot holds none: the order in which Weights
  /// are given.
  std::vector<int> slots(int layer, int head, Caller caller = Caller::here()) const {
    const Head& tokens = checked(layer, head, caller);
    std::vector<int> positions;
    for (int index = 0; index < tokens.blocks(); ++index) {
      const Block& block = tokens.block(index);
      for (int slot = 0; slot < block.used; ++slot)
        positions.push_back((block.live >> slot & 1U) != 0 ? block.position[slot] : -1);
    }
    return positions;
  }
  /// External storage: the slots that the last commit overwrote, in order. No slot is read after it
  /// was written.
  std::span<const Move> moves(int layer, int head, Caller caller = Caller::here()) const {
    (void)checked(layer, head, caller);
    return layers_[static_cast<std::size_t>(layer)].moves[static_cast<std::size_t>(head)];
  }
  /// What a policy that looks at each head once (FastGen) chose for it; a default Choice before.
  /// `Part` is that policy, where it is one of several.
  template <class Part = Policy>
  requires detail::Chooses<Part>
  auto choice(int layer, int head, Caller caller = Caller::here()) const {
    using Choice = typename Part::Choice;
    (void)checked(layer, head, caller);
    const Choices& choices = layers_[static_cast<std::size_t>(layer)].choices;
    require(choices.size == sizeof(Choice), caller, "choice: the policy of layer ", layer,
            " is another one");
    return choices.made[static_cast<std::size_t>(head)] ? choices.at<Choice>(head) : Choice{};
  }
  /// What this cache holds of the pool: payload and side table. A payload shared by forks counts in
  /// each of them.
  std::size_t bytes_in_use() const { return account_->bytes_in_use(); }
  const Stats& stats() const { return stats_; }

  /// Decodes a layer's live tokens into `keys` [tokens, H, D] and `values` [tokens, H, Dv], each
  /// head's in order of position; heads may have different counts. Either view may be null.
  /// Keys are as they arrived; compacted ones come rotated by their slot.
  void export_dense(int layer, OutputView keys, OutputView values, Caller caller = Caller::here());

 private:
  friend struct detail::CacheAccess;
  struct ForkTag {};
  enum class Open : std::uint8_t { none, open, torn };
  template <class Part>
  static inline const typename Part::State kFreshState{};

  /// The same settings and history, no tokens yet.
  KVCache(const KVCache& from, ForkTag)
      : policy_(from.policy_),
        storage_(from.storage_),
        reduce_(from.reduce_),
        positions_(from.positions_),
        executor_(from.executor_),
        rope_(from.rope_),
        levels_(from.levels_),
        model_rope_(from.model_rope_),
        account_(std::make_unique<Account>(from.account_->pool())),
        length_(from.length_),
        stats_(from.stats_) {
    seen_ = from.seen_;
    prompt_begin_ = from.prompt_begin_;
    prompt_end_ = from.prompt_end_;
    layers_.resize(from.layers_.size());
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      layers_[layer].plan = from.layers_[layer].plan;
      layers_[layer].evicts = from.layers_[layer].evicts;
      layers_[layer].turns = from.layers_[layer].turns;
      layers_[layer].choices = from.layers_[layer].choices;
      layers_[layer].heads.resize(from.layers_[layer].heads.size());
      layers_[layer].moves.resize(layers_[layer].heads.size());
      layers_[layer].ring = from.layers_[layer].ring;
    }
  }
  /// A layer with its policy's needs. Throws Error where they cannot be met.
  template <class Mine>
  void plan_layer(const Mine& policy, Layer layer, const ShapeList& shapes, Caller caller) {
    const Shape& shape = shapes[layer.index];
    LayerState& state = layers_[static_cast<std::size_t>(layer.index)];
    const bool compacted = positions_ == Positions::compacted;
    state.plan = kvast::plan_layer(shape, storage_.template plan<Arch>(layer.index),
                                   SideLayout::of<typename Mine::State>(Mine::needs));
    state.plan.fresh_state = reinterpret_cast<const std::byte*>(&kFreshState<Mine>);
    state.plan.keeps_order = compacted;
    require(!compacted || state.plan.key_basis.is_identity(), caller,
            "Positions::compacted turns keys by their place, and the storage keeps them rotated or "
            "in a basis of their own");
    const StoragePlan& formats = state.plan.formats;
    require(!formats.before_rope || positions_ == Positions::unrotated, caller,
            "the storage's key basis is of keys before rotation, and needs Positions::unrotated");
    require(!state.plan.prunes() ||
                (state.plan.has_payload() && state.plan.key_basis.is_identity() && !compacted),
            caller,
            "the storage drops channels of keys as queries meet them: it must keep keys, in no "
            "basis, and not under Positions::compacted");
    state.plan.reconstructs = formats.before_rope && !state.plan.key_basis.is_identity();
    require(state.plan.has_payload() || positions_ == Positions::original, caller,
            compacted ? "Positions::compacted" : "Positions::unrotated",
            " needs a storage that keeps keys");
    require(state.plan.has_payload() ||
                (state.plan.key_basis.is_identity() && state.plan.value_basis.is_identity()),
            caller, "External storage keeps no keys and values that could be in a basis");
    require(!compacted || state.plan.formats.first_coded == 0, caller,
            "Positions::compacted keeps blocks in order: the storage's keep.tokens must be 0, not ",
            state.plan.formats.first_coded);
    require(!Mine::needs.vectors || (state.plan.has_payload() && !compacted), caller,
            detail::policy_name<Mine>(),
            " ranks by keys and values as they arrived; External storage keeps none, and "
            "Positions::compacted turns them");
    state.evicts = detail::evicts<Mine>();
    const auto heads = static_cast<std::size_t>(shape.heads);
    state.heads.resize(heads);
    state.channels.resize(heads * static_cast<std::size_t>(state.plan.sealed_channels));
    state.moves.resize(heads);
    state.turns.resize(heads);
    for (const bool ends_prompt : {false, true}) {
      detail::of_phase(policy, ends_prompt, [&](const auto& phase) {
        using Phase = std::remove_cvref_t<decltype(phase)>;
        for (std::size_t head = 0; head < heads; ++head) {
          LayerSet& own = state.turns[head].own[ends_prompt ? 1 : 0];
          own = state.turns[0].own[ends_prompt ? 1 : 0];
          if (head > 0 && !detail::splits<Phase, Split::heads>()) continue;
          const int at = static_cast<int>(head);
          own = detail::own_layers(policy_, shapes, layer.index, at, ends_prompt);
          layer.own = &own;
          detail::of_head(phase, layer.index, at,
                          [&](const auto& mine) { detail::check_part(mine, layer, caller); });
        }
      });
    }
    detail::each_watcher(policy, true, [&](const auto& watcher) {
      using Watcher = std::remove_cvref_t<decltype(watcher)>;
      if constexpr (detail::Chooses<Watcher>)
        state.choices.template reset<typename Watcher::Choice>(heads);
    });
  }
  const LayerState& checked(int layer, Caller caller) const {
    require(layer >= 0 && layer < layers(), caller, "layer is ", layer, ", must lie in [0, ",
            layers(), ")");
    return layers_[static_cast<std::size_t>(layer)];
  }
  const Head& checked(int layer, int head, Caller caller) const {
    const LayerState& state = checked(layer, caller);
    const int heads = static_cast<int>(state.heads.size());
    require(head >= 0 && head < heads, caller, "head is ", head, ", must lie in [0, ", heads, ")");
    return state.heads[static_cast<std::size_t>(head)];
  }
  /// Live tokens of the largest head: compacted positions reach so far, however long the sequence.
  int most_live() const {
    int most = 0;
    for (const LayerState& layer : layers_) {
      for (const Head& head : layer.heads) most = std::max(most, head.live());
    }
    return most;
  }
  /// Factor by which the cache's own rotation may make a key's largest number larger.
  float turn_growth() const {
    if (positions_ == Positions::original) return 1.0F;
    const float scale = levels_.empty() ? rope_.scale() : levels_.rope().scale;
    return 1.4142137F * std::max(scale, 1.0F);
  }
  const RopeLevels* levels() const { return levels_.empty() ? nullptr : &levels_; }
  void free_blocks() {
    for (LayerState& layer : layers_) {
      for (Head& head : layer.heads) {
        clear_list(layer.plan, head.coded, true, *account_);
        clear_list(layer.plan, head.dense, false, *account_);
      }
    }
    account_->settle();
  }
  PassKind kind() const {
    return {.tokens = static_cast<int>(new_positions_.size()),
            .length = length_,
            .ends_prompt = ends_prompt_,
            .more_of_prompt = more_of_prompt_,
            .prompt_begin = prompt_begin_,
            .prompt_end = prompt_end_};
  }
  void finish_pass() {
    length_ = new_positions_.back() + 1;
    seen_ += static_cast<int>(new_positions_.size());
    if (!more_of_prompt_) prompt_begin_ = length_;
    if (ends_prompt_) prompt_end_ = length_;
    account_->settle();
    if (ends_prompt_) account_->pool().trim();
    state_ = Open::none;
    ++generation_;
    for (LayerState& layer : layers_) layer.stage = Stage::idle;
  }
  void drop_pass(std::uint64_t generation) {
    if (account_ == nullptr || generation != generation_ || state_ != Open::open) return;
    if (committed_ > 0) {
      account_->settle();
      state_ = Open::torn;
      return;
    }
    for (LayerState& layer : layers_) {
      restore_states(layer, learn_.spare);
      for (Head& head : layer.heads) {
        if (layer.stage != Stage::idle)
          take_back(layer.plan, head, static_cast<int>(new_positions_.size()), *account_);
      }
      layer.stage = Stage::idle;
    }
    account_->settle();
    state_ = Open::none;
    ++generation_;
  }

  Policy policy_;
  StorageType storage_;
  std::optional<Reduce> reduce_;
  Positions positions_;
  Executor executor_;
  RopeTable rope_;     ///< compacted positions
  RopeLevels levels_;  ///< unrotated positions
  Rope model_rope_;    ///< how queries were rotated, for policies that need them unrotated
  std::unique_ptr<Account> account_;
  std::vector<LayerState> layers_;
  int length_ = 0;
  int seen_ = 0;          ///< tokens; fewer than length_ where positions have gaps
  int prompt_begin_ = 0;  ///< first position of the prompt that goes on, or of the next one
  int prompt_end_ = 0;    ///< position after the last prompt that ended; 0: none has
  bool shares_ = false;   ///< a fork may share payload
  Stats stats_;

  // the open pass
  Open state_ = Open::none;
  std::uint64_t generation_ = 0;
  bool ends_prompt_ = false;
  bool more_of_prompt_ = false;
  int committed_ = 0;  ///< layers
  std::vector<int> new_positions_;
  std::vector<TokenKind> kinds_;

  // buffers, grown once
  Requests requests_;
  AttendWork attend_;
  std::vector<float> queries_;
  std::vector<float> sealed_queries_;  ///< of the channels that sealed keys have
  std::vector<int> visible_;
  std::vector<int> observed_positions_;
  std::vector<HeadWork> commit_;
  LearnWork learn_;
  std::vector<float> export_scratch_;
};

}  // namespace kvast

#include "kvast/copies.h"
#include "kvast/pass.h"
