// SPDX-License-Identifier: Apache-2.0
// One sequence of a cache's device memory, from and to the host's.
#pragma once

#include "kvast/gpu/cache_memory.cuh"
#include "kvast/gpu/image.cuh"

namespace kvast::gpu {

/// What the host has of a sequence: for each layer its heads and their blocks.
struct SequenceImage {
  struct Layer {
    std::vector<HeadImage> heads;
    std::vector<std::byte> bytes;
    std::vector<std::byte> choices;  ///< of heads, where the policy makes one for each
  };
  std::vector<Layer> layers;
  int length = 0;
  int prompt_end = 0;
  bool mid_prompt = false;  ///< a prompt goes on

  /// No head has more tokens that wait.
  int most_waiting() const {
    int blocks = 0;
    for (const Layer& layer : layers) {
      for (const HeadImage& head : layer.heads) blocks = std::max(blocks, head.dense);
    }
    return blocks * kBlockTokens;
  }
};

/// Waits for the stream: for beginnings and ends, not for steps.
template <class DeviceType>
class SequenceTransfer {
 public:
  SequenceTransfer(CacheMemory<DeviceType>& memory, int sequence)
      : memory_(memory), sequence_(sequence) {}

  /// Into a sequence that has no tokens. Where blocks cannot be had nothing has changed; after
  /// another failure the cache is torn.
  Status load(SequenceImage& image) {
    const std::vector<int> nothing(memory_.lengths_.size(), 0);
    if (Status status = memory_.provide(nothing, true); !status) return status;
    if (Status status = promise(image); !status) return status;
    const Passage passage(memory_.pool_, image);
    if (!passage.status) return passage.status;
    Status status;
    for (std::size_t layer = 0; layer < image.layers.size(); ++layer)
      status.then(
          [&] { return move(static_cast<int>(layer), image.layers[layer], passage, true); });
    int unsealed = image.most_waiting();
    const auto set = [&](int* array, int& value) {
      status.then(
          [&] { return DeviceType::copy(array + sequence_, &value, sizeof value, stream()); });
    };
    set(memory_.tables_.lengths, image.length);
    set(memory_.tables_.prompt_ends, image.prompt_end);
    set(memory_.tables_.unsealed, unsealed);
    status.then([&] { return memory_.settle(true); });
    memory_.reserves_.set_mid_prompt(sequence_, image.mid_prompt);
    status.then([&]() -> Status {
      if (memory_.latest_.missing == 0) return {};
      return {StatusCode::device_failed, "to_device: a kernel found no free block"};
    });
    memory_.torn_ = memory_.torn_ || !status;
    return status;
  }

  Status store(SequenceImage& image) {
    image = {};
    image.layers.resize(static_cast<std::size_t>(memory_.layers()));
    if (!memory_.exists()) {
      for (int layer = 0; layer < memory_.layers(); ++layer)
        image.layers[static_cast<std::size_t>(layer)].heads.resize(
            static_cast<std::size_t>(memory_.view(layer).head_count));
      return {};
    }
    image.mid_prompt = memory_.mid_prompt(sequence_);
    Status status = get(memory_.tables_.lengths, image.length);
    status.then([&] { return get(memory_.tables_.prompt_ends, image.prompt_end); });
    for (int layer = 0; layer < memory_.layers(); ++layer) {
      SequenceImage::Layer& to = image.layers[static_cast<std::size_t>(layer)];
      status.then([&] { return read_heads(layer, to); });
    }
    if (!status) return status;
    const Passage passage(memory_.pool_, image);
    if (!passage.status) return passage.status;
    for (int layer = 0; layer < memory_.layers(); ++layer) {
      status.then([&] {
        return move(layer, image.layers[static_cast<std::size_t>(layer)], passage, false);
      });
    }
    return status;
  }

 private:
  auto stream() const { return memory_.pool_.stream(); }
  Status get(const int* array, int& value) const {
    return DeviceType::copy(&value, array + sequence_, sizeof value, stream());
  }

  /// For the image, and for the replays that are still to come: what waits may be sealed by them.
  Status promise(const SequenceImage& image) {
    int most = 0;
    for (std::size_t layer = 0; layer < image.layers.size(); ++layer) {
      std::int64_t coded = 0;
      std::int64_t dense = 0;
      for (const HeadImage& head : image.layers[layer].heads) {
        coded += head.coded;
        dense += head.dense;
        most = std::max(most, head.coded + head.dense);
      }
      const bool codes = memory_.reserves_.codes(static_cast<int>(layer));
      Status status = memory_.reserves_.provide_blocks(static_cast<int>(layer),
                                                       coded + (codes ? dense : 0), dense);
      if (!status) return status;
    }
    return memory_.tables_.widen(most + blocks_of(memory_.reserves_.replayed()) + 2,
                                 memory_.codes_);
  }

  Status read_heads(int layer, SequenceImage::Layer& to) const {
    const LayerView& view = memory_.view(layer);
    const auto count = static_cast<std::size_t>(view.head_count);
    const std::ptrdiff_t first = std::ptrdiff_t{sequence_} * view.head_count;
    std::vector<Head> heads(count);
    std::vector<Turn> turns(count);
    Status status =
        DeviceType::copy(heads.data(), view.heads + first, count * sizeof(Head), stream());
    status.then([&] {
      return DeviceType::copy(turns.data(), view.turns + first, count * sizeof(Turn), stream());
    });
    status.then([&] { return DeviceType::wait(stream()); });
    if (!status) return status;
    to.heads.clear();
    std::int64_t end = 0;
    for (std::size_t at = 0; at < count; ++at) {
      to.heads.push_back({.begin = end,
                          .coded = heads[at].coded.count,
                          .dense = heads[at].dense.count,
                          .coded_live = heads[at].coded.live,
                          .dense_live = heads[at].dense.live,
                          .acted = turns[at].acted,
                          .chose = turns[at].chose});
      end += ImageLayout::bytes_of(view, to.heads.back());
    }
    to.bytes.resize(static_cast<std::size_t>(end));
    return {};
  }

  /// Memory of the device for the largest layer of an image.
  struct Passage {
    Passage(Pool<DeviceType>& all, const SequenceImage& image) : pool(all) {
      std::size_t bytes = 1;
      for (const SequenceImage::Layer& layer : image.layers)
        bytes = std::max(bytes, heads_bytes(layer) + layer.bytes.size());
      void* got = nullptr;
      status.then([&] { return pool.allocate(got, bytes); });
      memory = static_cast<std::byte*>(got);
    }
    Passage(const Passage&) = delete;
    Passage& operator=(const Passage&) = delete;
    ~Passage() {
      if (memory != nullptr) pool.release(memory);
    }
    static std::size_t heads_bytes(const SequenceImage::Layer& layer) {
      return (layer.heads.size() * sizeof(HeadImage) + 63) / 64 * 64;
    }

    Pool<DeviceType>& pool;
    std::byte* memory = nullptr;
    Status status;
  };

  /// Between the image's memory and heads' blocks, by way of the device's.
  Status move(int layer, SequenceImage::Layer& image, const Passage& passage, bool loads) const {
    const LayerView& view = memory_.view(layer);
    Status status = DeviceType::copy(passage.memory, image.heads.data(),
                                     image.heads.size() * sizeof(HeadImage), stream());
    const MoveImage kernel{.layer = view,
                           .sequence = sequence_,
                           .heads = reinterpret_cast<const HeadImage*>(passage.memory),
                           .image = passage.memory + Passage::heads_bytes(image),
                           .loads = loads};
    const auto copy = [&](void* to, const void* from) {
      if (image.bytes.empty()) return Status{};
      return DeviceType::copy(to, from, image.bytes.size(), stream());
    };
    if (loads) status.then([&] { return copy(kernel.image, image.bytes.data()); });
    status.then([&] {
      return DeviceType::launch(kernel, {view.head_count, MoveImage::kSharedBytes}, stream());
    });
    if (!loads) status.then([&] { return copy(image.bytes.data(), kernel.image); });
    status.then([&] { return DeviceType::wait(stream()); });
    return status;
  }

  CacheMemory<DeviceType>& memory_;
  int sequence_;
};

}  // namespace kvast::gpu
