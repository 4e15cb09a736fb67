// SPDX-License-Identifier: Apache-2.0
// What a cache on the device must hold, as a naive list of tokens: who stays is decided by a rule,
// and what is sealed went through the CPU's tile codecs.
#pragma once

#include <algorithm>
#include <vector>

#include "kvast/core/rope.h"
#include "kvast/core/rotation.h"
#include "kvast/format/floats.h"
#include "kvast/format/tile.h"

namespace kvast::test {

struct ModelToken {
  int position;
  std::vector<float> key;  ///< as it is stored and decoded
  std::vector<float> value;
  bool sealed = false;
};

/// One head of one layer and sequence.
template <class Waiting, class Keys, class Values>
struct ModelHead {
  std::vector<ModelToken> tokens;  ///< ascending positions
  Rotation key_rotation{};         ///< of what is stored; dim 0: none
  Rotation value_rotation{};

  void append(int position, const float* key, int key_dim, const float* value, int value_dim) {
    ModelToken token{position, {key, key + key_dim}, {value, value + value_dim}};
    if (key_rotation.dim != 0) key_rotation.apply(token.key.data());
    if (value_rotation.dim != 0) value_rotation.apply(token.value.data());
    for (float& number : token.key) number = Waiting::number(Waiting::element(number));
    for (float& number : token.value) number = Waiting::number(Waiting::element(number));
    tokens.push_back(token);
  }
  /// As it is exported.
  ModelToken shown(std::size_t at) const {
    ModelToken token = tokens[at];
    if (key_rotation.dim != 0) key_rotation.undo(token.key.data());
    if (value_rotation.dim != 0) value_rotation.undo(token.value.data());
    return token;
  }
  template <class Keeps>
  void evict(const Keeps& keeps) {
    std::erase_if(tokens, [&](const ModelToken& token) { return !keeps(token.position); });
  }
  void seal(int residual, int first_coded) {
    std::vector<ModelToken*> waiting;
    for (ModelToken& token : tokens) {
      if (!token.sealed && token.position >= first_coded) waiting.push_back(&token);
    }
    while (static_cast<int>(waiting.size()) >= residual + kBlockTokens) {
      encode({waiting.begin(), waiting.begin() + kBlockTokens});
      waiting.erase(waiting.begin(), waiting.begin() + kBlockTokens);
    }
  }

 private:
  static void encode(const std::vector<ModelToken*>& block) {
    const int key_dim = static_cast<int>(block[0]->key.size());
    const int value_dim = static_cast<int>(block[0]->value.size());
    // keys [key_dim, 32]: a group is 32 tokens of a channel
    std::vector<float> numbers(static_cast<std::size_t>(key_dim * kBlockTokens));
    const auto each = [&](auto&& body) {
      for (int dim = 0; dim < key_dim; ++dim) {
        for (int slot = 0; slot < kBlockTokens; ++slot)
          body(numbers[static_cast<std::size_t>(dim * kBlockTokens + slot)],
               block[static_cast<std::size_t>(slot)]->key[static_cast<std::size_t>(dim)]);
      }
    };
    each([](float& number, float key) { number = key; });
    through<Keys>(numbers.data(), kBlockTokens, key_dim, kBlockTokens);
    each([](float number, float& key) { key = number; });
    // values [32, up to 32 channels]: a group is up to 32 channels of a token
    for (int first = 0; first < value_dim; first += kBlockTokens) {
      const int columns = std::min(value_dim - first, kBlockTokens);
      std::vector<float> tile;
      for (ModelToken* token : block)
        tile.insert(tile.end(), token->value.begin() + first,
                    token->value.begin() + first + columns);
      through<Values>(tile.data(), columns, kBlockTokens, columns);
      for (std::size_t slot = 0; slot < block.size(); ++slot)
        std::copy_n(tile.begin() + static_cast<std::ptrdiff_t>(slot) * columns, columns,
                    block[slot]->value.begin() + first);
    }
    for (ModelToken* token : block) token->sealed = true;
  }
  template <class Format>
  static void through(float* numbers, int stride, int rows, int columns) {
    std::vector<std::byte> tile(tile_bytes<Format>(rows, columns));
    tile_encode<Format>(numbers, stride, rows, columns, tile.data());
    tile_decode<Format>(tile.data(), rows, columns, numbers, stride);
  }
};

}  // namespace kvast::test
