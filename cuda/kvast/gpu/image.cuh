// SPDX-License-Identifier: Apache-2.0
// The blocks of one sequence and layer as bytes in a row: how a cache travels between machines.
#pragma once

#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// One head's blocks in an image, and what else is known of the head.
struct HeadImage {
  std::int64_t begin = 0;  ///< byte of the image: blocks, coded ones first
  int coded = 0;           ///< blocks
  int dense = 0;
  int coded_live = 0;  ///< tokens
  int dense_live = 0;
  int acted = 0;       ///< Turn::acted
  bool chose = false;  ///< Turn::chose
};

/// Where the parts of a block stand in an image; each is a multiple of 16 bytes.
struct ImageLayout {
  std::int64_t keys = 0;    ///< behind the record
  std::int64_t values = 0;  ///< behind the keys
  std::int64_t bytes = 0;

  KVAST_HD static ImageLayout of(const LayerView& layer, bool coded) {
    const auto whole = [](std::int64_t bytes) { return (bytes + 15) / 16 * 16; };
    ImageLayout layout;
    layout.keys = whole(static_cast<std::int64_t>(layer.layout.bytes));
    layout.values = layout.keys + whole((coded ? layer.coded_keys : layer.dense_keys).bytes);
    layout.bytes = layout.values + whole((coded ? layer.coded_values : layer.dense_values).bytes);
    return layout;
  }
  /// Of the blocks of a head.
  KVAST_HD static std::int64_t bytes_of(const LayerView& layer, const HeadImage& head) {
    return head.coded * of(layer, true).bytes + head.dense * of(layer, false).bytes;
  }
};

/// Moves the blocks of one sequence's heads between their places and an image. Loading takes
/// blocks, which were promised, for heads that have none.
struct MoveImage {
  static constexpr int kThreads = 128;
  static constexpr std::size_t kSharedBytes = kThreads / kWarp * sizeof(int);
  LayerView layer{};
  int sequence = 0;
  const HeadImage* heads = nullptr;  ///< [head_count]
  std::byte* image = nullptr;
  bool loads = false;

  /// Grid: heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int table = sequence * layer.head_count + block.index();
    const HeadImage one = heads[block.index()];
    Head& head = layer.head(table);
    if (loads) {
      int* shared = reinterpret_cast<int*>(block.shared());
      if (!extend(block, layer, head.coded, one.coded, true, shared)) return;
      if (!extend(block, layer, head.dense, one.dense, false, shared)) {
        for (int at = block.thread(); at < one.coded; at += block.threads())
          give_record(block, layer, head.coded.data[at], true);
        return;
      }
    }
    block.sync();
    std::byte* at = image + one.begin;
    for (int index = 0; index < one.coded + one.dense; ++index) {
      const bool coded = index < one.coded;
      kvast::Block& record = coded ? head.coded[index] : head.dense[index - one.coded];
      const ImageLayout layout = ImageLayout::of(layer, coded);
      const kvast::Block own = record;
      block.sync();  // the record itself is copied
      copy(block, at, reinterpret_cast<std::byte*>(&record),
           static_cast<std::int64_t>(layer.layout.bytes));
      copy(block, at + layout.keys, own.keys, (coded ? layer.coded_keys : layer.dense_keys).bytes);
      copy(block, at + layout.values, own.values,
           (coded ? layer.coded_values : layer.dense_values).bytes);
      block.sync();
      if (loads && block.thread() == 0) {
        record.keys = own.keys;
        record.values = own.values;
      }
      at += layout.bytes;
    }
    block.sync();
    if (!loads || block.thread() != 0) return;
    head.coded.count = one.coded;
    head.coded.live = one.coded_live;
    head.dense.count = one.dense;
    head.dense.live = one.dense_live;
    layer.turns[table] = {.acted = one.acted, .chose = one.chose};
  }

 private:
  template <class Block>
  KVAST_HD void copy(const Block& block, std::byte* in_image, std::byte* in_place,
                     std::int64_t bytes) const {
    const std::byte* from = loads ? in_image : in_place;
    std::byte* to = loads ? in_place : in_image;
    const std::int64_t chunks = bytes / static_cast<std::int64_t>(sizeof(Chunk));
    for (std::int64_t at = block.thread(); at < chunks; at += block.threads())
      reinterpret_cast<Chunk*>(to)[at] = reinterpret_cast<const Chunk*>(from)[at];
    for (std::int64_t at = chunks * static_cast<std::int64_t>(sizeof(Chunk)) + block.thread();
         at < bytes; at += block.threads())
      to[at] = from[at];
  }
};

}  // namespace kvast::gpu
