// SPDX-License-Identifier: Apache-2.0
// A cache moves between the host and the device: tokens, codes, policy states and positions stay
// what they are.
#pragma once

#include <string_view>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/gpu/sequence_transfer.cuh"
#include "kvast/gpu/tiles.h"

namespace kvast {

namespace gpu::detail {

/// The blocks of one layer, as the host has them and as an image has them.
template <class Formats>
class BlockBytes {
  using Waiting = typename Formats::Waiting;
  using Element = typename Waiting::Element;

 public:
  BlockBytes(const LayerPlan& plan, const LayerView& view) : plan_(plan), view_(view) {}

  void to_image(Block& from, bool coded, std::byte* to) {
    const ImageLayout layout = ImageLayout::of(view_, coded);
    std::memcpy(to, &from, view_.layout.bytes);
    if (coded) {
      to_codes<Part::keys, typename Formats::Keys>(from.keys, view_.head_dim, to + layout.keys);
      to_codes<Part::values, typename Formats::Values>(from.values, view_.value_dim,
                                                       to + layout.values);
      return;
    }
    each_dense(from, [&](Part part, int token, int channel, float number) {
      const bool live = (from.live >> token & 1U) != 0;  // others were perhaps never written
      dense(to, layout, part)[token * dim_of(part) + channel] =
          Waiting::element(live ? number : 0.0F);
    });
  }
  /// `to` has its payload's memory.
  void from_image(std::byte* from, bool coded, Block& to) {
    const ImageLayout layout = ImageLayout::of(view_, coded);
    std::byte* keys = to.keys;
    std::byte* values = to.values;
    std::memcpy(&to, from, view_.layout.bytes);
    to.keys = keys;
    to.values = values;
    if (coded) {
      from_codes<Part::keys, typename Formats::Keys>(from + layout.keys, view_.head_dim, keys);
      from_codes<Part::values, typename Formats::Values>(from + layout.values, view_.value_dim,
                                                         values);
      return;
    }
    const Element* rows = dense(from, layout, Part::keys);
    numbers_.resize(static_cast<std::size_t>(view_.head_dim * kBlockTokens));
    for (int channel = 0; channel < view_.head_dim; ++channel) {
      for (int token = 0; token < kBlockTokens; ++token)
        numbers_[static_cast<std::size_t>(channel * kBlockTokens + token)] =
            Waiting::number(rows[token * view_.head_dim + channel]);
    }
    plan_.formats.dense_keys->encode(numbers_.data(), kBlockTokens, view_.head_dim, kBlockTokens,
                                     keys);
    rows = dense(from, layout, Part::values);
    numbers_.resize(static_cast<std::size_t>(view_.value_dim * kBlockTokens));
    for (std::size_t at = 0; at < numbers_.size(); ++at) numbers_[at] = Waiting::number(rows[at]);
    for_value_tiles(*plan_.formats.dense_values, values, view_.value_dim,
                    [&](std::byte* tile, int first, int channels) {
                      plan_.formats.dense_values->encode(numbers_.data() + first, view_.value_dim,
                                                         kBlockTokens, channels, tile);
                    });
  }

 private:
  int dim_of(Part part) const { return part == Part::keys ? view_.head_dim : view_.value_dim; }
  static Element* dense(std::byte* image, const ImageLayout& layout, Part part) {
    return reinterpret_cast<Element*>(image + (part == Part::keys ? layout.keys : layout.values));
  }
  template <Part kPart, class Format>
  static void to_codes(const std::byte* from, int dim, std::byte* to) {
    if constexpr (Formats::codes) from_tiles<Format, kPart>(from, dim, to);
  }
  template <Part kPart, class Format>
  static void from_codes(const std::byte* from, int dim, std::byte* to) {
    if constexpr (Formats::codes) to_tiles<Format, kPart>(from, dim, to);
  }
  /// body(part, token, channel, number) for every number of a dense block of the host's.
  template <class Body>
  void each_dense(const Block& from, const Body& body) {
    numbers_.resize(
        static_cast<std::size_t>(std::max(view_.head_dim, kBlockTokens) * kBlockTokens));
    plan_.formats.dense_keys->decode(from.keys, view_.head_dim, kBlockTokens, numbers_.data(),
                                     kBlockTokens);
    for (int channel = 0; channel < view_.head_dim; ++channel) {
      for (int token = 0; token < kBlockTokens; ++token)
        body(Part::keys, token, channel,
             numbers_[static_cast<std::size_t>(channel * kBlockTokens + token)]);
    }
    for_value_tiles(*plan_.formats.dense_values, from.values, view_.value_dim,
                    [&](const std::byte* tile, int first, int channels) {
                      plan_.formats.dense_values->decode(tile, kBlockTokens, channels,
                                                         numbers_.data(), channels);
                      for (int at = 0; at < kBlockTokens * channels; ++at)
                        body(Part::values, at / channels, first + at % channels,
                             numbers_[static_cast<std::size_t>(at)]);
                    });
  }

  const LayerPlan& plan_;
  const LayerView& view_;
  std::vector<float> numbers_;
};

}  // namespace gpu::detail

/// What conversions reach of a cache.
struct detail::CacheAccess {
  template <class Formats, class Host, class Device>
  static void check(const Host& host, const Device& device, int sequence, const char* verb,
                    Caller caller) {
    device.memory_.check(sequence, 0, 0, caller);
    device.memory_.check_no_capture(verb, caller);
    require(host.state_ == Host::Open::none && !device.memory_.open() && !device.memory_.torn(),
            caller, verb, ": a pass is open, or a cache is torn");
    require(
        host.positions_ != Positions::unrotated && host.rope_.rope() == device.memory_.slot_rope(),
        caller, verb, ": positions are kept otherwise on the device, or turned otherwise");
    require(host.layers() == device.layers(), caller, verb, ": the caches have ", host.layers(),
            " and ", device.layers(), " layers");
    for (int layer = 0; layer < host.layers(); ++layer) {
      const Shape& shape = host.shape(layer);
      const gpu::LayerView& view = device.view(layer);
      require(shape.heads == view.head_count && shape.head_dim == view.head_dim &&
                  shape.values() == view.value_dim,
              caller, verb, ": layer ", layer, " has another shape on the device");
      require(shape.group() == device.group(layer), caller, verb, ": layer ", layer, " has ",
              shape.group(), " query heads to a head on the host, and ", device.group(layer),
              " on the device");
      const LayerPlan& plan = host.layers_[static_cast<std::size_t>(layer)].plan;
      require(plan.is_coded() == (view.coded_keys.bytes > 0) &&
                  plan.keeps_order == view.keeps_order &&
                  (!plan.is_coded() || (plan.formats.residual == view.residual &&
                                        plan.formats.first_coded == view.first_coded)),
              caller, verb, ": layer ", layer, " is kept otherwise on the device");
      require(!plan.prunes() && is_turned(plan.formats.key_basis, view.key_rotation) &&
                  is_turned(plan.formats.value_basis, view.value_rotation),
              caller, verb, ": layer ", layer,
              " is kept in another basis on the device, or another rotation");
      require(plan.side == view.layout, caller, verb, ": layer ", layer,
              " has another policy on the device, with other states");
      check_format<typename Formats::Waiting>(plan.formats.dense_keys, verb, layer, caller);
      if (plan.is_coded()) {
        check_format<typename Formats::Keys>(plan.formats.coded_keys, verb, layer, caller);
        check_format<typename Formats::Values>(plan.formats.coded_values, verb, layer, caller);
      }
    }
    require(host.seen_ == host.length_, caller, verb,
            ": token positions with gaps are not on the device");
  }

  /// Queries of a prompt's earlier chunks do not travel: the device keeps none.
  template <class Device>
  static void check_prompt_is_over(const Device& device, int sequence, Caller caller) {
    device.work_.parts().each([&](const auto& part, const auto&) {
      using Part = std::remove_cvref_t<decltype(part)>;
      require(!replays<Part>() || !device.memory_.mid_prompt(sequence), caller,
              "to_host: a prompt of sequence ", sequence, " goes on, and ", policy_name<Part>(),
              " looks back at queries of its earlier chunks, which the device does not keep: end "
              "it first");
    });
  }
  template <class Device>
  static Status learn_lengths(Device& device) {
    return device.memory_.settle(true);
  }
  template <class Formats, class Host, class Device>
  static Status to_device(Host& from, Device& to, int sequence) {
    gpu::SequenceImage image;
    image.length = from.length_;
    image.prompt_end = from.prompt_end_;
    image.mid_prompt = from.prompt_begin_ < from.length_;
    for (LayerState& state : from.layers_) {
      const gpu::LayerView& view = to.view(static_cast<int>(image.layers.size()));
      gpu::SequenceImage::Layer& layer = image.layers.emplace_back();
      std::int64_t end = 0;
      for (std::size_t head = 0; head < state.heads.size(); ++head) {
        const Head& tokens = state.heads[head];
        layer.heads.push_back({.begin = end,
                               .coded = tokens.coded.count,
                               .dense = tokens.dense.count,
                               .coded_live = tokens.coded.live,
                               .dense_live = tokens.dense.live,
                               .acted = state.turns.empty() ? 0 : state.turns[head].last_act + 1,
                               .chose = state.choices.size > 0 && state.choices.made[head]});
        end += gpu::ImageLayout::bytes_of(view, layer.heads.back());
      }
      layer.choices = state.choices.values;
      layer.bytes.resize(static_cast<std::size_t>(end));
      each_block<Formats>(state, view, layer,
                          [](auto& bytes, Block& block, bool coded, std::byte* at) {
                            bytes.to_image(block, coded, at);
                          });
    }
    if (Status status = move_choices(to, sequence, image, true); !status) return status;
    return gpu::SequenceTransfer(to.memory_, sequence).load(image);
  }

  template <class Formats, class Host, class Device>
  static Status to_host(Device& from, int sequence, Host& to) {
    gpu::SequenceImage image;
    if (Status status = gpu::SequenceTransfer(from.memory_, sequence).store(image); !status)
      return status;
    if (Status status = move_choices(from, sequence, image, false); !status) return status;
    Requests requests;
    for (std::size_t layer = 0; layer < image.layers.size(); ++layer) {
      for (const gpu::HeadImage& head : image.layers[layer].heads) {
        if (head.coded > 0) reserve_blocks(to.layers_[layer].plan, {}, true, head.coded, requests);
        reserve_blocks(to.layers_[layer].plan, {}, false, head.dense, requests);
      }
    }
    if (Status status = to.account_->reserve(requests.all()); !status) return status;
    for (std::size_t layer = 0; layer < image.layers.size(); ++layer) {
      LayerState& state = to.layers_[layer];
      const std::vector<gpu::HeadImage>& heads = image.layers[layer].heads;
      for (std::size_t head = 0; head < heads.size(); ++head) {
        Head& tokens = state.heads[head];
        for (int at = 0; at < heads[head].coded; ++at)
          push_block(state.plan, tokens.coded, true, *to.account_);
        for (int at = 0; at < heads[head].dense; ++at)
          push_block(state.plan, tokens.dense, false, *to.account_);
        tokens.coded.live = heads[head].coded_live;
        tokens.dense.live = heads[head].dense_live;
        if (!state.turns.empty()) state.turns[head].last_act = heads[head].acted - 1;
        if (state.choices.size > 0) state.choices.made[head] = heads[head].chose;
      }
      take_choices(image.layers[layer], state.choices);
      each_block<Formats>(state, from.view(static_cast<int>(layer)), image.layers[layer],
                          [](auto& bytes, Block& block, bool coded, std::byte* at) {
                            bytes.from_image(at, coded, block);
                          });
    }
    to.account_->settle();
    to.length_ = to.seen_ = image.length;
    to.prompt_end_ = image.prompt_end;
    to.prompt_begin_ = image.mid_prompt ? image.prompt_end : image.length;
    return {};
  }

 private:
  static bool is_turned(const BasisPlan& plan, const Rotation& rotation) {
    if (plan.directions != nullptr || plan.rotates != (rotation.dim > 0)) return false;
    return !plan.rotates || rotation == Rotation::of(rotation.dim, plan.seed);
  }
  template <class Format>
  static void check_format(const Codec* host, const char* verb, int layer, Caller caller) {
    const std::string_view name = host == nullptr ? "nothing" : host->name;
    require(name == Format::kName, caller, verb, ": layer ", layer, " is kept in ", name,
            " on the host and in ", Format::kName, " on the device");
  }
  /// What a policy chose for the sequence's heads, beside the blocks. It counts where their turns
  /// say so, which they do not before the blocks are there. Waits.
  template <class Device>
  static Status move_choices(Device& device, int sequence, gpu::SequenceImage& image, bool loads) {
    using Driver = typename std::remove_reference_t<decltype(device.memory_.pool())>::Device;
    const auto stream = device.memory_.pool().stream();
    Status status;
    bool any = false;
    for (int layer = 0; layer < device.layers(); ++layer) {
      device.work_.parts().of_layer(layer, [&](const auto& mine) {
        each_part(mine, [&](const auto& part, const auto&) {
          using Part = std::remove_cvref_t<decltype(part)>;
          if constexpr (Chooses<Part>) {
            if (loads && !any) status.then([&] { return device.work_.provide(0, 0); });
            any = true;
            const auto choices = device.work_.learned().template choices<Part>();
            if (!status || choices.all == nullptr) return;
            const gpu::LayerView& view = device.view(layer);
            std::vector<std::byte>& host = image.layers[static_cast<std::size_t>(layer)].choices;
            host.resize(static_cast<std::size_t>(view.head_count) * sizeof(typename Part::Choice));
            auto* there = &choices.at(view, sequence * view.head_count);
            status.then([&] {
              return loads ? Driver::copy(there, host.data(), host.size(), stream)
                           : Driver::copy(host.data(), there, host.size(), stream);
            });
          }
        });
      });
    }
    if (any) status.then([&] { return Driver::wait(stream); });
    return status;
  }
  /// Those that were made.
  static void take_choices(const gpu::SequenceImage::Layer& from, Choices& to) {
    for (std::size_t head = 0; head < to.made.size(); ++head) {
      if (to.made[head])
        std::memcpy(to.values.data() + head * to.size, from.choices.data() + head * to.size,
                    to.size);
    }
  }
  /// body(bytes, block, coded, image) for every block of a layer's heads.
  template <class Formats, class Body>
  static void each_block(LayerState& state, const gpu::LayerView& view,
                         gpu::SequenceImage::Layer& layer, const Body& body) {
    gpu::detail::BlockBytes<Formats> bytes(state.plan, view);
    for (std::size_t head = 0; head < state.heads.size(); ++head) {
      const Head& tokens = state.heads[head];
      std::byte* at = layer.bytes.data() + layer.heads[head].begin;
      for (int index = 0; index < tokens.blocks(); ++index) {
        const bool coded = index < tokens.coded.count;
        body(bytes, tokens.block(index), coded, at);
        at += gpu::ImageLayout::of(view, coded).bytes;
      }
    }
  }
};

namespace gpu {

/// Copies all tokens of a cache into a sequence of one on the device that has none; the caches must
/// have the same shapes, policy and storage (AnyStorage is what it holds). Waits for the stream.
/// Where memory is missing nothing has changed; after another failure the device's cache is torn.
/// Throws Error for shapes, storages and positions that differ, a sequence that has tokens, and
/// open passes. Settings of policies are not compared.
template <class Policy, class HostS, class HostArch, class S, class DeviceType, class Arch>
Status to_device(KVCache<Policy, HostS, HostArch>& from,
                 KVCache<Policy, OnGpu<S, DeviceType>, Arch>& to, int sequence,
                 Caller caller = Caller::here()) {
  kvast::detail::CacheAccess::check<DeviceFormats<S>>(from, to, sequence, "to_device", caller);
  // replays may have filled it
  if (Status status = kvast::detail::CacheAccess::learn_lengths(to); !status) return status;
  require(to.length(sequence) == 0, caller, "to_device: sequence ", sequence, " has ",
          to.length(sequence), " tokens; clear it");
  return kvast::detail::CacheAccess::to_device<DeviceFormats<S>>(from, to, sequence);
}

/// And back, into a cache of the host that has no tokens. What fails changes nothing. Within a
/// prompt, not under a policy that looks back at its queries (SnapKV): throws Error.
template <class Policy, class S, class DeviceType, class Arch, class HostS, class HostArch>
Status to_host(KVCache<Policy, OnGpu<S, DeviceType>, Arch>& from, int sequence,
               KVCache<Policy, HostS, HostArch>& to, Caller caller = Caller::here()) {
  kvast::detail::CacheAccess::check<DeviceFormats<S>>(to, from, sequence, "to_host", caller);
  require(to.length() == 0, caller, "to_host: the host's cache has ", to.length(),
          " tokens; clear it");
  kvast::detail::CacheAccess::check_prompt_is_over(from, sequence, caller);
  return kvast::detail::CacheAccess::to_host<DeviceFormats<S>>(from, sequence, to);
}

}  // namespace gpu
}  // namespace kvast
