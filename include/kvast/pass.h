// SPDX-License-Identifier: Apache-2.0
// KVCache::Pass: one forward pass, layer by layer: append, attend (or observe), commit.
#pragma once

#include "kvast/host/check_pass.h"
#include "kvast/host/moments.h"
#include "kvast/kv_cache.h"

namespace kvast {

/// Handle of the open pass. Dropped before the first commit, it leaves the cache as it was; dropped
/// between commits, the cache is torn and takes nothing but `clear`. The pass is over when every
/// layer is committed.
template <class PolicyType, class StorageType, class Arch>
class KVCache<PolicyType, StorageType, Arch>::Pass {
 public:
  Pass(Pass&& other) noexcept
      : cache_(std::exchange(other.cache_, nullptr)), generation_(other.generation_) {}
  Pass& operator=(Pass&&) = delete;
  ~Pass() {
    if (cache_ != nullptr) cache_->drop_pass(generation_);
  }

  /// New tokens of a layer: `keys` [n, H, D] and `values` [n, H, Dv]. Read during the call only.
  /// Refuses numbers that are not finite or that the storage cannot hold. External storage takes
  /// none, or keys where the policy reads norms.
  void append(int layer, View keys = {}, View values = {}, Caller caller = Caller::here()) {
    LayerState& state = at(layer, Stage::idle, "append", caller);
    const Shape& shape = state.plan.shape;
    const bool payload = state.plan.has_payload();
    const int count = static_cast<int>(cache_->new_positions_.size());
    if (payload || state.plan.side.norms != 0) {
      detail::check_extent("append: keys", keys, count, shape.heads, shape.head_dim, caller);
    } else {
      keys = {};
    }
    if (payload) {
      detail::check_extent("append: values", values, count, shape.heads, shape.values(), caller);
    } else {
      values = {};
    }
    const StoragePlan& formats = state.plan.formats;
    const float turn = state.plan.reconstructs ? 1.0F : cache_->turn_growth();
    if (keys.data != nullptr)
      detail::check_numbers(
          "append: keys", keys, count, shape.heads, shape.head_dim,
          largest(formats.dense_keys, formats.coded_keys, state.plan.key_basis) / turn, caller);
    if (values.data != nullptr)
      detail::check_numbers(
          "append: values", values, count, shape.heads, shape.values(),
          largest(formats.dense_values, formats.coded_values, state.plan.value_basis), caller);
    const Arrivals arrivals{.keys = keys,
                            .values = values,
                            .positions = cache_->new_positions_,
                            .kinds = cache_->kinds_,
                            .rope = cache_->rope_.empty() ? nullptr : &cache_->rope_,
                            .levels = cache_->levels()};
    const Executor alone;
    (count >= kBlockTokens ? cache_->executor_ : alone).parallel_for(shape.heads, [&](int head) {
      append_tokens(state.plan, state.heads[static_cast<std::size_t>(head)], head, arrivals,
                    *cache_->account_);
    });
    state.stage = Stage::appended;
  }

  /// Attention of the new tokens over everything kept, causal among themselves: `queries` [n, Q, D]
  /// -> `output` [n, Q, Dv]. Shows the policy what it needs. Reads each block once for all query
  /// heads of its group. `output` must not overlap `queries`, which must be finite.
  void attend(int layer, View queries, OutputView output, const AttendOptions& options = {},
              Caller caller = Caller::here()) {
    LayerState& state = at(layer, Stage::appended, "attend", caller);
    const Shape& shape = state.plan.shape;
    const std::vector<int>& positions = cache_->new_positions_;
    const int count = static_cast<int>(positions.size());
    require(state.plan.has_payload(), caller,
            "attend: External storage keeps no keys; use observe");
    detail::check_extent("attend: queries", queries, count, shape.query_heads, shape.head_dim,
                         caller);
    detail::check_numbers("attend: queries", queries, count, shape.query_heads, shape.head_dim,
                          3.402823466e+38F, caller);
    detail::check_extent("attend: output", output, count, shape.query_heads,
                         state.plan.output_dim(), caller);
    detail::check_options(options, shape, count, positions.back(), caller);
    const float scale = options.scale == 0.0F ? 1.0F / std::sqrt(static_cast<float>(shape.head_dim))
                                              : options.scale;
    const Wishes wishes = wishes_of(state, layer);
    pack(state, queries, positions, scale, count, 0);
    const QueryRows rows = packed_rows(state, positions, 0);
    AttendWork& work = cache_->attend_;
    work.saves = count == 1 && wishes.attention && wishes.replayed == 0;
    run(state, rows, output, options);
    restore_states(state, cache_->learn_.spare);  // an earlier try may have thrown after observing
    if (wishes.attention) learn_rows(state, layer, rows, options, false);
    if (wishes.replayed > 0) replay(state, layer, queries, scale, wishes.replayed, options);
    if constexpr (PolicyType::needs.query_moments) {
      if (wishes.moments)
        take_moments(shape, queries, scale, positions, wishes.moments_from,
                     cache_->levels() == nullptr ? cache_->model_rope_ : Rope{}, cache_->executor_,
                     state.moments);
    }
    if (wishes.channels && cache_->ends_prompt_)
      take_query_energies(state, queries, positions, cache_->prompt_begin_, cache_->levels(),
                          scale);
    if (wishes.ring > 0)
      roll_ring(shape, state.ring, queries, positions, scale, wishes.ring, state.pending_ring);
    state.stage = Stage::attended;
  }

  /// In place of attend, for engines with their own kernel: the weights it computed, slots in the
  /// order of `slots`.
  void observe(int layer, const Weights& weights, Caller caller = Caller::here()) {
    LayerState& state = at(layer, Stage::appended, "observe", caller);
    const Wishes wishes = wishes_of(state, layer);
    require(
        !wishes.channels, caller,
        "observe: the storage chooses channels by the prompt's queries, which only attend sees");
    require(!wishes.moments, caller, "observe: ", detail::type_name<PolicyType>,
            " needs the queries, which only attend sees");
    require(wishes.ring == 0 || !state.plan.has_payload(), caller,
            "observe: ", detail::type_name<PolicyType>,
            " votes with the queries of all chunks, which only attend sees");
    const std::vector<int>& positions = cache_->new_positions_;
    const int count = static_cast<int>(positions.size());
    if constexpr (kObserves) {
      require(weights.data != nullptr, caller, "observe: weights must not be null");
      require(count == 1 || weights.token_stride > 0, caller,
              "observe: weights.token_stride must be given for ", count, " tokens");
      require(state.plan.shape.query_heads == 1 || weights.head_stride > 0, caller,
              "observe: weights.head_stride must be given for ", state.plan.shape.query_heads,
              " query heads");
      require(weights.token_stride <= kMostStride && weights.head_stride <= kMostStride, caller,
              "observe: weights' strides are ", weights.token_stride, " and ", weights.head_stride,
              ", must be at most 2^40");
      int most = 0;
      for (const Head& head : state.heads) most = std::max(most, head.slots());
      const std::int64_t needed = (count - 1) * weights.token_stride +
                                  (state.plan.shape.query_heads - 1) * weights.head_stride + most;
      require(weights.elements < 0 || weights.elements >= needed, caller, "observe: weights has ",
              weights.elements, " elements, ", count, " tokens on ", most, " slots need ", needed);
      require(count >= wishes.votes, caller, "observe: ", detail::type_name<PolicyType>,
              " votes with its last ", wishes.votes, " queries, this pass has ", count,
              ", and weights of earlier passes are not kept: give them in one pass");
      restore_states(state, cache_->learn_.spare);
      if (wishes.attention) {
        const Lesson lesson = lesson_of(layer, count, 16, false);
        teach(state, layer, lesson,
              [&](int head, int first, int end, const Look& look, auto&& sink) {
                observe_weights<Arch>(state, positions, weights, look.reduce, prompt_end(),
                                      look.first_row, head, first, end, sink);
              });
      }
    }
    state.stage = Stage::attended;
  }

  /// Makes the pass final for a layer: observe, evict, gather, seal. Cannot fail but by misuse.
  void commit(int layer, Caller caller = Caller::here()) {
    const Wishes wishes = wishes_of(open(caller).checked(layer, caller), layer);
    const bool needs_weights =
        wishes.attention || wishes.ring > 0 || wishes.moments || wishes.channels;
    LayerState& state =
        at(layer, needs_weights ? Stage::attended : Stage::appended, "commit", caller, true);
    KVCache& cache = *cache_;
    const int seen = cache.seen_ + static_cast<int>(cache.new_positions_.size());
    CommitContext context{.layer = {layer, cache.layers(), seen},
                          .newest = cache.new_positions_.back(),
                          .ends_prompt = cache.ends_prompt_,
                          .seals = !cache.more_of_prompt_,
                          .rope = &cache.model_rope_,
                          .levels = cache.levels(),
                          .executor = &cache.executor_};
    const int committed = ++cache.committed_;  // whatever happens now, the pass cannot be undone
    state.stage = Stage::committed;
    detail::of_layer(cache.policy_, layer, [&](const auto& policy) {
      using Mine = std::remove_cvref_t<decltype(policy)>;
      // within a prompt that goes on, neither phase's policy has its turn
      context.waits = detail::splits<Mine, Split::phases>() && cache.more_of_prompt_;
      detail::of_phase(policy, cache.ends_prompt_, [&](const auto& acting) {
        commit_layer(acting, state, context, *cache.account_, cache.commit_);
      });
    });
    forget_states(state, cache.learn_.spare);
    cache.stats_.appended +=
        static_cast<std::int64_t>(cache.new_positions_.size()) * state.plan.shape.heads;
    for (HeadWork& head : cache.commit_) {
      cache.stats_.evicted += std::exchange(head.evicted, 0);
      cache.stats_.sealed += std::exchange(head.counts.sealed, 0);
      cache.stats_.repacked += std::exchange(head.counts.repacked, 0);
    }
    if (wishes.ring > 0) {
      std::swap(state.ring, state.pending_ring);
    } else if (!state.ring.positions.empty()) {
      state.ring = {};
    }
    if (committed == cache.layers()) cache.finish_pass();
  }

 private:
  friend class KVCache;
  Pass(KVCache& cache, std::uint64_t generation) : cache_(&cache), generation_(generation) {}

  KVCache& open(Caller caller) const {
    require(cache_ != nullptr && cache_->generation_ == generation_ && cache_->state_ == Open::open,
            caller, "pass: it is over, or was moved from");
    return *cache_;
  }
  LayerState& at(int layer, Stage wanted, const char* verb, Caller caller,
                 bool or_later = false) const {
    KVCache& cache = open(caller);
    LayerState& state = const_cast<LayerState&>(cache.checked(layer, caller));
    static constexpr const char* kNames[] = {"nothing", "append", "attend or observe", "commit"};
    const bool right = state.stage == wanted || (or_later && state.stage == Stage::attended);
    require(right, caller, verb, ": out of order for layer ", layer, ": the last call was ",
            kNames[static_cast<int>(state.stage)], ", needed is ",
            kNames[static_cast<int>(wanted)]);
    return state;
  }
  /// What a number may be so that its formats hold it, also as a coordinate.
  static float largest(const Codec* dense, const Codec* coded, const Basis& basis) {
    float most = 3.402823466e+38F;
    for (const Codec* codec : {dense, coded})
      if (codec != nullptr) most = std::min(most, codec->largest);
    return most / basis.growth();
  }

  Wishes wishes_of(const LayerState& state, int layer) const {
    Wishes wishes;
    const PassKind kind = cache_->kind();
    detail::of_layer(cache_->policy_, layer, [&](const auto& policy) {
      wishes = kvast::wishes_of(policy, layer, state, kind);
    });
    if (kind.in_prompt() && !state.plan.can_seal(state.heads[0])) {
      wishes.channels = true;
      if (kind.more_of_prompt)
        wishes.ring = std::max(wishes.ring, state.plan.formats.channels.window);
    }
    return wishes;
  }
  /// Attention::generated counts from here.
  int prompt_end() const {
    return cache_->kind().in_prompt() ? std::numeric_limits<int>::max() : cache_->prompt_end_;
  }
  Lesson lesson_of(int layer, int rows, int range, bool replay) const {
    return {.pass = cache_->kind(),
            .layer = layer,
            .rows = rows,
            .range = range,
            .newest = cache_->new_positions_.back(),
            .replay = replay,
            .reduce = cache_->reduce_,
            .executor = &cache_->executor_};
  }
  template <class Source>
  void teach(LayerState& state, int layer, const Lesson& lesson, const Source& source) const {
    detail::of_layer(cache_->policy_, layer, [&](const auto& policy) {
      learn(policy, state, lesson, source, cache_->learn_);
    });
  }
  void pack(const LayerState& state, const View& queries, std::span<const int> positions,
            float scale, int total, int before) const {
    const Shape& shape = state.plan.shape;
    const auto size = static_cast<std::size_t>(total) *
                      static_cast<std::size_t>(shape.query_heads * shape.head_dim);
    if (cache_->queries_.size() < size) cache_->queries_.resize(size);
    pack_queries(state.plan, queries, positions, cache_->levels(), scale, total, before,
                 cache_->queries_.data());
  }
  /// What `pack` made, as attention wants it.
  QueryRows packed_rows(const LayerState& state, std::span<const int> positions,
                        int replayed) const {
    const float* sealed = nullptr;
    if (state.plan.prunes() && state.plan.can_seal(state.heads[0])) {
      gather_query_channels(state.plan, state.heads,
                            static_cast<int>(positions.size()) * state.plan.shape.group(),
                            cache_->queries_.data(), cache_->sealed_queries_);
      sealed = cache_->sealed_queries_.data();
    }
    return {cache_->queries_.data(), positions, sealed, replayed};
  }
  void run(const LayerState& state, const QueryRows& rows, const OutputView& output,
           const AttendOptions& options) const {
    look(state.plan, state.heads, rows, options, cache_->rope_.empty() ? nullptr : &cache_->rope_,
         cache_->levels(), cache_->attend_);
    kvast::attend<Arch>(state.plan, rows, output, cache_->executor_, cache_->attend_);
  }

  /// The last `replayed` queries of earlier passes and those of this one, as one window.
  void replay(LayerState& state, int layer, const View& queries, float scale, int replayed,
              const AttendOptions& options) const {
    const Shape& shape = state.plan.shape;
    const QueryRing& ring = state.ring;
    const std::size_t skipped = ring.positions.size() - static_cast<std::size_t>(replayed);
    std::vector<int>& positions = cache_->observed_positions_;
    positions.assign(ring.positions.begin() + static_cast<std::ptrdiff_t>(skipped),
                     ring.positions.end());
    positions.insert(positions.end(), cache_->new_positions_.begin(), cache_->new_positions_.end());
    const int total = static_cast<int>(positions.size());
    pack(state, queries, cache_->new_positions_, scale, total, replayed);
    const View earlier(ring.queries.data() +
                           skipped * static_cast<std::size_t>(shape.query_heads * shape.head_dim),
                       shape.query_heads * shape.head_dim, shape.head_dim);
    const std::span all(positions);
    pack(state, earlier, all.first(static_cast<std::size_t>(replayed)), 1.0F, total, 0);
    const QueryRows rows = packed_rows(state, positions, replayed);
    AttendOptions quiet = options;
    quiet.log_sum_exp = {};
    run(state, rows, OutputView{}, quiet);
    learn_rows(state, layer, rows, quiet, true);
  }

  /// Shows the policy the rows that attention just had; `replay`: see Lesson.
  void learn_rows(LayerState& state, int layer, const QueryRows& rows, const AttendOptions& options,
                  bool replay) const {
    if constexpr (kObserves) {
      AttendWork& work = cache_->attend_;
      const auto count = static_cast<std::size_t>(rows.count());
      cache_->visible_.clear();
      for (const Head& head : state.heads)
        count_visible(head, rows, options.window, cache_->visible_);
      const Lesson lesson = lesson_of(layer, rows.count(), work.saves ? 64 : 4, replay);
      teach(state, layer, lesson, [&](int head, int first, int end, const Look& look, auto&& sink) {
        const Observation seen{
            .sight = &work.sights[static_cast<std::size_t>(head)],
            .lse = work.lse.data(),
            .visible =
                std::span(cache_->visible_).subspan(static_cast<std::size_t>(head) * count, count),
            .first_query = look.first_row,
            .reduce = look.reduce,
            .prompt_end = prompt_end()};
        if (work.saves) {
          observe_saved<Arch>(seen, work, first, end, sink);
        } else {
          observe_again<Arch>(seen, first, end, sink);
        }
      });
    }
  }

  KVCache* cache_;
  std::uint64_t generation_;
};

template <class P, class S, class Arch>
auto KVCache<P, S, Arch>::begin(const PassOptions& options, Caller caller) -> Result<Pass> {
  require(state_ != Open::open, caller, "begin: a pass is open");
  require(state_ != Open::torn, caller, "begin: a pass was dropped half-way; call clear() first");
  require(options.tokens >= 1 && options.tokens <= (1 << 20), caller, "begin: tokens is ",
          options.tokens, ", must lie in [1, 2^20]");
  require(!(options.last_of_prompt && options.more_of_prompt), caller,
          "begin: last_of_prompt and more_of_prompt exclude each other");
  require(!(options.more_of_prompt && P::needs.whole_prompt), caller,
          "begin: more_of_prompt is set, and ", detail::type_name<P>,
          " needs the whole prompt in one pass");
  require(!P::needs.whole_prompt || !options.last_of_prompt || length_ == 0 || prompt_end_ > 0,
          caller, "begin: last_of_prompt is set after ", length_, " tokens of no prompt, and ",
          detail::type_name<P>, " needs the whole prompt in one pass");
  require(length_ <= (1 << 30) - options.tokens, caller, "begin: position ", length_, " + ",
          options.tokens, " exceeds 2^30");
  const auto count = static_cast<std::size_t>(options.tokens);
  require(options.positions.empty() || options.positions.size() == count, caller,
          "begin: positions has ", options.positions.size(), " entries, tokens is ",
          options.tokens);
  require(options.kinds.empty() || options.kinds.size() == count, caller, "begin: kinds has ",
          options.kinds.size(), " entries, tokens is ", options.tokens);
  int last = length_ - 1;
  for (const int position : options.positions) {
    require(position > last && position < (1 << 30), caller, "begin: position ", position,
            " follows ", last, ", must be larger, and below 2^30");
    last = position;
  }
  requests_.clear();
  bool shared = false;
  for (const LayerState& layer : layers_) {
    shared |= reserve_layer(layer, options.tokens, !options.more_of_prompt, options.last_of_prompt,
                            shares_, account_->pool(), requests_);
  }
  new_positions_.assign(options.positions.begin(), options.positions.end());
  for (int next = length_; new_positions_.size() < count; ++next) new_positions_.push_back(next);
  kinds_.assign(options.kinds.begin(), options.kinds.end());
  if (!rope_.empty()) rope_.grow(most_live() + options.tokens + 2 * kBlockTokens);
  levels_.grow(new_positions_.back());
  // last of all that can fail
  if (Status status = account_->reserve(requests_.all()); !status) return status;
  shares_ = shares_ && shared;
  ends_prompt_ = options.last_of_prompt;
  more_of_prompt_ = options.more_of_prompt;
  committed_ = 0;
  state_ = Open::open;
  return Pass(*this, ++generation_);
}

}  // namespace kvast
