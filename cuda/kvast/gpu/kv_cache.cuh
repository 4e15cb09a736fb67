// SPDX-License-Identifier: Apache-2.0
// KVCache<Policy, OnGpu<S>>: the keys and values of a batch of sequences in device memory.
#pragma once

#include <utility>
#include <vector>

#include "kvast/gpu/append.cuh"
#include "kvast/gpu/attend_run.cuh"
#include "kvast/gpu/cache_memory.cuh"
#include "kvast/gpu/cache_options.h"
#include "kvast/gpu/commit.cuh"
#include "kvast/gpu/export.cuh"
#include "kvast/gpu/on_gpu.cuh"
#include "kvast/gpu/pass.cuh"
#include "kvast/gpu/policy_work.cuh"
#include "kvast/gpu/slots.cuh"
#include "kvast/kv_cache.h"

namespace kvast {

namespace gpu {

namespace detail {

inline int checked_sequences(int sequences, Caller caller) {
  require(sequences >= 1 && sequences <= 4096, caller, "options.sequences is ", sequences,
          ", must lie in [1, 4096]");
  return sequences;
}

}  // namespace detail
}  // namespace gpu

/// A batch of sequences of any lengths, kept by one policy, as KVCache keeps one. All work is
/// ordered on the pool's stream; after warm-up a pass allocates nothing and waits for nothing, and
/// no call uses the default stream unless the pool was made on it. Calls that read the cache back
/// (tokens, kept, bytes_in_use) say so: they wait for the stream. What can fail on a device is a
/// Status: where `begin` fails the cache is as it was, after a later failure it is torn and takes
/// nothing but `clear`. The pool must outlive it.
///
/// A pass is captured in a CUDA graph as it is: what kernels read of lengths and tables stands in
/// device memory. Call reserve(n) before n replays, and let such a pass run once before its
/// capture. Capturing changes nothing; each replay is a pass. Other passes may run in between.
template <class PolicyType, class S, class DeviceType, class Arch>
class KVCache<PolicyType, OnGpu<S, DeviceType>, Arch> {
  static_assert(check_policy<PolicyType>());
  static_assert(gpu::detail::runs_on_device<PolicyType>(),
                "kvast OnGpu: this policy does not run on the device: it must rank tokens one by "
                "one, and not need vectors or query moments (policies that rank whole heads run on "
                "the CPU)");
  using Formats = gpu::DeviceFormats<S>;
  static_assert(Formats::known,
                "kvast OnGpu: this storage has no layout on the device (Dense, Kivi, Int8, Int4, "
                "Float8 and Rotated of these have)");
  static_assert(detail::has_its_weights<PolicyType, S>(),
                "kvast OnGpu: this policy needs attention, and the engine gives none (Weightless): "
                "take a policy that does without, as StreamingLLM and L2Norm do");
  using Work = gpu::PolicyWork<PolicyType, Formats::attends, DeviceType>;

 public:
  using Policy = PolicyType;
  using Pool = gpu::Pool<DeviceType>;
  class Pass;

  /// Allocates nothing. Throws Error for impossible shapes and settings.
  KVCache(const ShapeList& shape, Policy policy, OnGpu<S, DeviceType> storage, Pool& pool,
          const gpu::CacheOptions& options = {}, Caller caller = Caller::here())
      : memory_(pool, gpu::detail::checked_sequences(options.sequences, caller)),
        attention_(pool),
        work_(policy, memory_, options.reduce) {
    if constexpr (requires { policy.validate(caller); }) policy.validate(caller);
    storage.storage.validate(caller);
    detail::validate_shape(policy, shape, caller);
    require(!options.reduce || *options.reduce <= Reduce::max, caller, "options.reduce is ",
            options.reduce ? static_cast<int>(*options.reduce) : 0, ", must be mean, sum or max");
    const bool compacted = options.positions == Positions::compacted;
    require(options.positions != Positions::unrotated, caller,
            "OnGpu: Positions::unrotated is not on the device");
    require(compacted == !options.rope.empty(), caller,
            "options.rope must be given with Positions::compacted, and only then");
    require(!compacted || !Formats::codes, caller,
            "OnGpu: Positions::compacted needs a Dense storage");
    for (int layer = 0; layer < shape.layers(); ++layer) {
      work_.add_layer(shape, layer, options.sequences, caller);
      if (compacted) options.rope.validate(shape[layer].head_dim, caller);
      add_layer(shape[layer], layer, Formats::of(storage.storage, layer), compacted, caller);
      groups_.push_back(shape[layer].group());
    }
    memory_.set_rope(options.rope);
  }
  KVCache(KVCache&&) = delete;
  KVCache& operator=(KVCache&&) = delete;

  int layers() const { return memory_.layers(); }
  int sequences() const { return memory_.sequences(); }
  /// Query heads per kv head of a layer.
  int group(int layer) const { return groups_.at(static_cast<std::size_t>(layer)); }
  /// Positions seen of a sequence. Not the number of tokens kept.
  int length(int sequence) const { return memory_.length(sequence); }
  /// What kernels see of a layer: for kernels of the caller's own. Valid while the cache lives and
  /// no pass grows it.
  const gpu::LayerView& view(int layer) const { return memory_.view(layer); }

  /// Opens a pass and reserves all it can need. One at a time.
  Result<Pass> begin(const gpu::PassOptions& options = {}, Caller caller = Caller::here()) {
    require(!memory_.open(), caller, "begin: another pass is open");
    require(!options.last_of_prompt || !options.more_of_prompt, caller,
            "begin: a prompt cannot both end and go on");
    require(!options.more_of_prompt || !Policy::needs.whole_prompt, caller,
            "begin: more_of_prompt is set, and ", detail::type_name<Policy>,
            " needs the whole prompt in one pass");
    if (options.last_of_prompt) work_.check_prompts(options, caller);
    if (Status status = memory_.begin(options.tokens, options.counts, !options.more_of_prompt,
                                      options.last_of_prompt, caller);
        !status)
      return status;
    kinds_ = options.kinds;
    if (Status status = work_.provide(memory_.rows(), memory_.most_rows()); !status) {
      memory_.drop();
      return status;
    }
    return Pass(*this);
  }
  /// Memory for `tokens` more tokens of every sequence, for passes that the host does not begin:
  /// replays of captured graphs, which may bring them to some sequences before others. Until
  /// settle() what earlier calls asked for counts as well. After more replays than that a head may
  /// find no block: then Counters::missing is not 0, what came was not kept, and the cache takes
  /// nothing but `clear`.
  Status reserve(int tokens, Caller caller = Caller::here()) {
    if (Status status = memory_.reserve(tokens, caller); !status) return status;
    Status status = work_.provide(0, 0);
    if (!status) memory_.take_back_reserve(tokens);
    return status;
  }

  /// After replays: learns where they have come to. Waits for the stream.
  Status settle(Caller caller = Caller::here()) {
    memory_.check_no_capture("settle", caller);
    return memory_.settle();
  }

  /// Forgets one sequence. No pass may be open.
  Status clear(int sequence, Caller caller = Caller::here()) {
    return memory_.clear(sequence, caller);
  }
  /// Forgets everything, a torn pass included. No pass that was captured before may be replayed.
  /// Waits for the stream where replays were reserved, or the cache is torn.
  Status clear(Caller caller = Caller::here()) {
    memory_.check_no_capture("clear", caller);
    attention_.forget();
    work_.forget();
    return memory_.clear();
  }

  /// Live tokens of a head. Waits for the stream.
  Result<int> tokens(int sequence, int layer, int head, Caller caller = Caller::here()) {
    Head copy;
    if (Status status = memory_.read_head(sequence, layer, head, copy, caller); !status)
      return status;
    return copy.live();
  }
  /// Positions of a head's live tokens, ascending. Waits for the stream.
  Result<std::vector<int>> kept(int sequence, int layer, int head, Caller caller = Caller::here()) {
    Result<int> live = tokens(sequence, layer, head, caller);
    if (!live) return live.status();
    const gpu::LayerView& view = memory_.view(layer);
    std::vector<int> all(static_cast<std::size_t>(view.head_count) *
                         static_cast<std::size_t>(std::max(*live, 1)));
    gpu::Export<gpu::Part::keys, typename Formats::Waiting, typename Formats::Keys> kernel;
    kernel.layer = view;
    kernel.sequence = sequence;
    kernel.most = std::max(*live, 1);
    if (Status status = memory_.with_scratch(all.size() * sizeof(int), all.data(),
                                             [&](void* scratch) {
                                               kernel.positions = static_cast<int*>(scratch);
                                               return DeviceType::launch(
                                                   kernel, {view.head_count, kernel.kSharedBytes},
                                                   memory_.pool().stream());
                                             });
        !status)
      return status;
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(head) * kernel.most;
    return std::vector<int>(first, first + *live);
  }
  /// Position of the token in each slot of a head, or -1 where a slot holds none: the order in
  /// which GivenWeights come. Waits for the stream.
  Result<std::vector<int>> slots(int sequence, int layer, int head,
                                 Caller caller = Caller::here()) {
    Head copy;
    if (Status status = memory_.read_head(sequence, layer, head, copy, caller); !status)
      return status;
    std::vector<int> all(static_cast<std::size_t>(copy.blocks()) * kBlockTokens);
    if (all.empty()) return all;
    const gpu::LayerView& view = memory_.view(layer);
    gpu::ListSlots kernel{.layer = view, .table = sequence * view.head_count + head};
    if (Status status = memory_.with_scratch(
            all.size() * sizeof(int), all.data(),
            [&](void* scratch) {
              kernel.to = static_cast<int*>(scratch);
              return DeviceType::launch(kernel, {1, 0}, memory_.pool().stream());
            });
        !status)
      return status;
    all.resize(static_cast<std::size_t>(copy.slots()));
    return all;
  }
  /// What a policy that looks at each head once (FastGen) chose for it; a default Choice before.
  /// Waits for the stream.
  /// `Part` is that policy, where it is one of several.
  template <class Part = Policy>
  requires detail::Chooses<Part> Result<typename Part::Choice> choice(
      int sequence, int layer, int head, Caller caller = Caller::here()) {
    memory_.check_read(sequence, layer, head, caller);
    bool has = false;
    work_.parts().each_watching(
        layer, {.in_prompt = true, .ends_prompt = true}, [&](const auto& part, const HeadMask&) {
          has = has || std::is_base_of_v<Part, std::remove_cvref_t<decltype(part)>>;
        });
    require(has, caller, "choice: the policy of layer ", layer, " is another one");
    const gpu::HeadChoices<Part> choices = work_.learned().template choices<Part>();
    if (!memory_.exists() || choices.all == nullptr) return typename Part::Choice{};
    const gpu::LayerView& view = memory_.view(layer);
    const int table = sequence * view.head_count + head;
    gpu::Turn turn;
    typename Part::Choice choice{};
    const auto stream = memory_.pool().stream();
    Status status = DeviceType::copy(&turn, view.turns + table, sizeof turn, stream);
    status.then(
        [&] { return DeviceType::copy(&choice, &choices.at(view, table), sizeof choice, stream); });
    status.then([&] { return DeviceType::wait(stream); });
    if (!status) return status;
    return turn.chose ? choice : typename Part::Choice{};
  }
  /// Decodes a sequence's live tokens of a layer into `keys` [rows, H, D] and `values` [rows, H,
  /// Dv], device memory, each head's in order of position, at most `rows` of them. Either may have
  /// null data. Ordered on the stream. Keys are as they arrived; compacted ones rotated by slot.
  Status export_dense(int sequence, int layer, int rows, const gpu::OutputTensor& keys,
                      const gpu::OutputTensor& values, Caller caller = Caller::here()) {
    memory_.check(sequence, layer, 0, caller);
    require(rows >= 0, caller, "export_dense: rows is ", rows, ", must be at least 0");
    if (!memory_.exists() || rows == 0) return {};
    Status status = export_part<gpu::Part::keys, typename Formats::Keys>(
        sequence, layer, rows, keys, memory_.view(layer).head_dim, caller);
    if (!status) return status;
    return export_part<gpu::Part::values, typename Formats::Values>(
        sequence, layer, rows, values, memory_.view(layer).value_dim, caller);
  }
  /// What this cache holds of the pool: blocks, tables, and attend's scratch. Waits for the stream.
  Result<std::size_t> bytes_in_use(Caller caller = Caller::here()) {
    Result<std::size_t> bytes = memory_.bytes_in_use(caller);
    if (bytes) *bytes += attention_.bytes() + work_.bytes();
    return bytes;
  }
  /// What kernels counted, as of some passes ago: numbers that were refused, and steps.
  const gpu::Counters& counters() { return memory_.latest(); }

 private:
  friend class Pass;
  friend struct detail::CacheAccess;
  void add_layer(const Shape& shape, int layer, const gpu::LayerFormat& format, bool compacted,
                 Caller caller) {
    gpu::LayerView view;
    view.layer = layer;
    view.keeps_order = compacted;
    fill_in(view, shape, format);
    const bool evicts = work_.fill_in(view);
    memory_.add_layer(view,
                      gpu::Habit{.coded = format.coded,
                                 .evicts = evicts,
                                 .residual = format.residual,
                                 .first_coded = format.first_coded},
                      caller);
  }
  static void fill_in(gpu::LayerView& view, const Shape& shape, const gpu::LayerFormat& format) {
    constexpr int kElement = sizeof(typename Formats::Waiting::Element);
    view.head_count = shape.heads;
    view.head_dim = shape.head_dim;
    view.value_dim = shape.values();
    view.residual = format.residual;
    view.first_coded = format.first_coded;
    view.dense_key_bytes = kElement * shape.head_dim;
    view.dense_value_bytes = kElement * shape.values();
    if (format.rotates) {
      view.key_rotation = Rotation::of(view.head_dim, format.seed);
      view.value_rotation = Rotation::of(view.value_dim, format.seed + 1);
    }
    if (format.coded) {
      view.coded_keys.bytes =
          gpu::PayloadRows<typename Formats::Keys, gpu::Part::keys>{shape.head_dim}.bytes();
      view.coded_values.bytes =
          gpu::PayloadRows<typename Formats::Values, gpu::Part::values>{shape.values()}.bytes();
    }
  }
  template <gpu::Part kPart, class Coded>
  Status export_part(int sequence, int layer, int rows, const gpu::OutputTensor& to, int dim,
                     Caller caller) {
    if (to.data == nullptr) return {};
    gpu::Export<kPart, typename Formats::Waiting, Coded> kernel;
    kernel.layer = memory_.view(layer);
    kernel.sequence = sequence;
    kernel.most = rows;
    kernel.to = to.checked("export_dense", kernel.layer.head_count, dim, caller);
    return DeviceType::launch(kernel, {kernel.layer.head_count, kernel.kSharedBytes},
                              memory_.pool().stream());
  }

  gpu::CacheMemory<DeviceType> memory_;
  gpu::AttendRunner<typename Formats::Kept, DeviceType> attention_;
  Work work_;
  std::vector<int> groups_;           ///< [layers] query heads per head
  const TokenKind* kinds_ = nullptr;  ///< of the open pass
};

}  // namespace kvast

#include "kvast/gpu/cache_pass.cuh"
