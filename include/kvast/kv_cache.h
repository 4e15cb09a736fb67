// SPDX-License-Identifier: Apache-2.0
// KVCache<Policy, Storage>: the only stateful class. Who stays is the policy's, how it is kept the
// storage's.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kvast/core/check_policy.h"
#include "kvast/core/pass_options.h"
#include "kvast/core/status.h"
#include "kvast/core/view.h"
#include "kvast/host/append.h"
#include "kvast/host/attend.h"
#include "kvast/host/commit.h"
#include "kvast/host/gather.h"
#include "kvast/host/observe.h"
#include "kvast/host/observe_layer.h"
#include "kvast/host/profile.h"
#include "kvast/host/reserve.h"

namespace kvast {

/// The keys and values of one sequence, for all layers of a model, kept small while a transformer
/// decodes. One thread uses a cache at a time; different caches are independent, also on one pool.
/// The pool must outlive it. Misuse throws Error before anything changed; an exhausted pool is a
/// Status, and the cache is as it was. After warm-up a step allocates nothing but pool blocks.
/// `Arch` is chosen by the compiler's flags; leave it alone.
template <class PolicyType, class StorageType, class Arch = Simd>
class KVCache {
  static_assert(check_policy<PolicyType>());
  static_assert(Storage<StorageType>,
                "kvast storage: must have plan<Simd>(layer) and validate(caller)");
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
        reduce_(options.reduce.value_or(detail::reduce_of(policy))),
        positions_(options.positions),
        executor_(options.executor),
        rope_(options.positions == Positions::compacted ? options.rope : Rope{}),
        model_rope_(Policy::needs.query_moments ? options.rope : Rope{}),
        account_(std::make_unique<Account>(pool)) {
    if constexpr (requires { policy.validate(caller); }) policy.validate(caller);
    storage.validate(caller);
    const bool compacted = positions_ == Positions::compacted;
    require(Policy::needs.query_moments || compacted == !options.rope.empty(), caller,
            "options.rope must be given with Positions::compacted, and only then, or where the "
            "policy needs it");
    layers_.resize(static_cast<std::size_t>(shape.layers()));
    choices_.resize(layers_.size());
    for (int layer = 0; layer < shape.layers(); ++layer) {
      if (!options.rope.empty()) options.rope.validate(shape[layer].head_dim, caller);
      LayerState& state = layers_[static_cast<std::size_t>(layer)];
      state.budget = checked_budget({layer, shape.layers()}, caller);
      state.plan = {.shape = shape[layer],
                    .formats = storage.template plan<Arch>(layer),
                    .side = SideLayout::of(Policy::needs, sizeof(State)),
                    .fresh_state = reinterpret_cast<const std::byte*>(&kFreshState),
                    .keeps_order = compacted};
      require(!compacted || state.plan.has_payload(), caller,
              "Positions::compacted needs a storage that keeps keys");
      require(!Policy::needs.vectors || (state.plan.has_payload() && !compacted), caller,
              "policy: it ranks by keys and values as they arrived; External storage keeps none, "
              "and Positions::compacted turns them");
      state.heads.resize(static_cast<std::size_t>(shape[layer].heads));
      state.moves.resize(state.heads.size());
      if constexpr (detail::Chooses<Policy>)
        choices_[static_cast<std::size_t>(layer)].kept.resize(state.heads.size());
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
    for (auto& choices : choices_) {
      for (auto& entry : choices.kept) entry = {};
    }
    for (LayerState& layer : layers_) {
      layer.ring = {};
      layer.last_act = -1;
      layer.stage = Stage::idle;
      layer.observed = false;
    }
    length_ = 0;
    chunk_before_ = false;
    prompt_ended_ = false;
    ++generation_;
    state_ = Open::none;
  }

  int layers() const { return static_cast<int>(layers_.size()); }
  const Shape& shape(int layer, Caller caller = Caller::here()) const {
    return checked(layer, caller).plan.shape;
  }
  const Policy& policy() const { return policy_; }
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
  auto choice(int layer, int head,
              Caller caller = Caller::here()) const requires detail::Chooses<Policy> {
    (void)checked(layer, head, caller);
    return choices_[static_cast<std::size_t>(layer)].kept[static_cast<std::size_t>(head)].choice;
  }
  /// What this cache holds of the pool: payload and side table. A payload shared by forks counts in
  /// each of them.
  std::size_t bytes_in_use() const { return account_->bytes_in_use(); }
  const Stats& stats() const { return stats_; }

  /// Decodes a layer's live tokens into `keys` [tokens, H, D] and `values` [tokens, H, Dv], each
  /// head's in order of position; heads may have different counts. Either view may be null.
  /// Compacted keys come rotated by their slot.
  void export_dense(int layer, OutputView keys, OutputView values, Caller caller = Caller::here());

 private:
  using State = typename Policy::State;
  struct ForkTag {};
  enum class Open : std::uint8_t { none, open, torn };
  static inline const State kFreshState{};

  /// The same settings and history, no tokens yet.
  KVCache(const KVCache& from, ForkTag)
      : policy_(from.policy_),
        storage_(from.storage_),
        reduce_(from.reduce_),
        positions_(from.positions_),
        executor_(from.executor_),
        rope_(from.rope_),
        model_rope_(from.model_rope_),
        account_(std::make_unique<Account>(from.account_->pool())),
        length_(from.length_),
        stats_(from.stats_) {
    chunk_before_ = from.chunk_before_;
    prompt_ended_ = from.prompt_ended_;
    choices_ = from.choices_;
    layers_.resize(from.layers_.size());
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      layers_[layer].plan = from.layers_[layer].plan;
      layers_[layer].budget = from.layers_[layer].budget;
      layers_[layer].heads.resize(from.layers_[layer].heads.size());
      layers_[layer].moves.resize(layers_[layer].heads.size());
      layers_[layer].ring = from.layers_[layer].ring;
      layers_[layer].last_act = from.layers_[layer].last_act;
    }
  }
  Budget checked_budget(Layer layer, Caller caller) const {
    if constexpr (requires { policy_.validate_layers(layer.layers, caller); })
      policy_.validate_layers(layer.layers, caller);
    const Budget budget = detail::budget_of(policy_, layer);
    const When when = detail::when_of(policy_);
    require(!budget.limited() || budget.tokens >= 1, caller, "policy: budget of layer ",
            layer.index, " is ", budget.tokens, ", must be at least 1");
    const int pins = detail::pins_of(policy_);
    require(!budget.limited() || budget.tokens >= pins, caller, "policy: budget of layer ",
            layer.index, " is ", budget.tokens, ", must be at least the ", pins,
            " tokens that are always kept");
    require(when.batch >= 1, caller, "policy: when.batch is ", when.batch, ", must be at least 1");
    require(!budget.limited() || budget.cap || when.batch <= budget.tokens, caller,
            "policy: when.batch is ", when.batch, ", must be at most the budget, ", budget.tokens);
    return budget;
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
  void free_blocks() {
    for (LayerState& layer : layers_) {
      for (Head& head : layer.heads) {
        clear_list(layer.plan, head.coded, true, *account_);
        clear_list(layer.plan, head.dense, false, *account_);
      }
    }
    account_->settle();
  }
  /// Whether this pass shows the policy its queries: all passes, but for a policy that replays and
  /// acts at prompts' ends.
  bool observes_now() const {
    return kObserves && !(detail::replays<Policy>() &&
                          detail::when_of(policy_).kind == When::Kind::prompt && !ends_prompt_);
  }
  bool keeps_ring() const {
    return kObserves && detail::replays<Policy>() && detail::window_of(policy_) > 1 &&
           (detail::when_of(policy_).kind != When::Kind::prompt || more_of_prompt_);
  }
  /// Whether the window of the vote may reach back into passes before this one.
  bool wants_replay() const {
    if (!kObserves || !detail::replays<Policy>() || length_ == 0) return false;
    return detail::when_of(policy_).kind != When::Kind::prompt || chunk_before_;
  }
  void finish_pass() {
    chunk_before_ = more_of_prompt_;
    prompt_ended_ = prompt_ended_ || ends_prompt_;
    length_ = new_positions_.back() + 1;
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
      restore_states(layer, spare_);
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
  Reduce reduce_;
  Positions positions_;
  Executor executor_;
  RopeTable rope_;   ///< compacted positions
  Rope model_rope_;  ///< how queries were rotated, for policies that need them unrotated
  std::unique_ptr<Account> account_;
  std::vector<LayerState> layers_;
  std::vector<ChoiceTable<Policy>> choices_;  ///< [layers]
  int length_ = 0;
  bool shares_ = false;  ///< a fork may share payload
  Stats stats_;

  // the open pass
  Open state_ = Open::none;
  std::uint64_t generation_ = 0;
  bool ends_prompt_ = false;
  bool more_of_prompt_ = false;
  bool chunk_before_ = false;  ///< the last pass was a chunk of the prompt that goes on
  bool prompt_ended_ = false;  ///< some pass was the last of a prompt
  int committed_ = 0;          ///< layers
  std::vector<int> new_positions_;
  std::vector<TokenKind> kinds_;

  // buffers, grown once
  Requests requests_;
  AttendWork attend_;
  std::vector<float> queries_;
  std::vector<int> visible_;
  std::vector<int> observed_positions_;
  std::vector<HeadWork> commit_;
  std::vector<StatesBefore> spare_;
  std::vector<float> export_scratch_;
};

}  // namespace kvast

#include "kvast/pass.h"
