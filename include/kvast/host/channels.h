// SPDX-License-Identifier: Apache-2.0
// channels: a head chooses which channels its sealed keys keep, and queries follow.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kvast/core/rope_levels.h"
#include "kvast/host/layer.h"
#include "kvast/host/rank.h"

namespace kvast {

/// Adds the squares of queries [tokens, Q, D] at `positions`, multiplied by `scale`, to `energies`
/// [H, D]: the group's query heads together. `levels`: they arrive unrotated; else null.
inline void add_query_energies(const Shape& shape, const View& queries,
                               std::span<const int> positions, int first, const RopeLevels* levels,
                               float scale, std::vector<double>& energies) {
  float numbers[512];
  for (int token = first; token < static_cast<int>(positions.size()); ++token) {
    for (int head = 0; head < shape.query_heads; ++head) {
      read_vector(queries, token, head, shape.head_dim, numbers);
      for (int dim = 0; dim < shape.head_dim; ++dim) numbers[dim] *= scale;
      if (levels != nullptr) levels->rotate(numbers, positions[static_cast<std::size_t>(token)]);
      double* to = energies.data() + head / shape.group() * shape.head_dim;
      for (int dim = 0; dim < shape.head_dim; ++dim)
        to[dim] += static_cast<double>(numbers[dim]) * static_cast<double>(numbers[dim]);
    }
  }
}

/// The newest queries of the prompt that ends with this pass, those of earlier chunks out of the
/// ring: fills `layer.query_energies`.
inline void take_query_energies(LayerState& layer, const View& queries,
                                std::span<const int> positions, int prompt_begin,
                                const RopeLevels* levels, float scale) {
  const Shape& shape = layer.plan.shape;
  const int window = layer.plan.formats.channels.window;
  const int fresh = std::min(window, static_cast<int>(positions.size()));
  layer.query_energies.assign(static_cast<std::size_t>(shape.heads * shape.head_dim), 0.0);
  const std::vector<int>& earlier = layer.ring.positions;
  const auto of_prompt = std::lower_bound(earlier.begin(), earlier.end(), prompt_begin);
  const int skipped = static_cast<int>(
      std::max(of_prompt - earlier.begin(), std::ssize(earlier) - (window - fresh)));
  const View ring(layer.ring.queries.data(), shape.query_heads * shape.head_dim, shape.head_dim);
  add_query_energies(shape, ring, earlier, skipped, levels, 1.0F, layer.query_energies);
  add_query_energies(shape, queries, positions, static_cast<int>(positions.size()) - fresh, levels,
                     scale, layer.query_energies);
}

/// The choice of one head, by the queries' energies and its live keys. All of them are dense yet.
inline void choose_head_channels(LayerState& layer, int head_index, Head& head,
                                 EncodeScratch& scratch) {
  const auto dim = static_cast<std::size_t>(layer.plan.shape.head_dim);
  std::vector<double> energies(dim, 0.0);
  float key[512];
  order_tokens(head, scratch.places);  // summed in order of position: slots must not matter
  detail::BlockReader reader(layer.plan, head, scratch.decoded);
  for (const Place& place : scratch.places) {
    reader.read(head.block(place.slot / kBlockTokens), false, false);
    reader.key(place.slot % kBlockTokens, key, 1);
    for (std::size_t at = 0; at < dim; ++at)
      energies[at] += static_cast<double>(key[at]) * static_cast<double>(key[at]);
  }
  const ChannelPlan& plan = layer.plan.formats.channels;
  const auto chosen = choose_channels(
      std::span(layer.query_energies).subspan(static_cast<std::size_t>(head_index) * dim, dim),
      energies, layer.plan.sealed_channels, plan.pairs);
  std::uint16_t* mine =
      layer.channels.data() + static_cast<std::ptrdiff_t>(head_index) * layer.plan.sealed_channels;
  std::copy(chosen.begin(), chosen.end(), mine);
  head.channels = mine;
}

/// Rows [heads, rows, head_dim] of packed queries, of the channels that each head kept:
/// [heads, rows, sealed_channels].
inline void gather_query_channels(const LayerPlan& plan, std::span<const Head> heads, int rows,
                                  const float* from, std::vector<float>& to) {
  const auto width = static_cast<std::size_t>(plan.sealed_channels);
  const std::size_t size = heads.size() * static_cast<std::size_t>(rows) * width;
  if (to.size() < size) to.resize(size);
  float* row = to.data();
  for (const Head& head : heads) {
    for (int at = 0; at < rows; ++at, from += plan.shape.head_dim, row += width) {
      if (head.channels == nullptr) continue;
      for (std::size_t channel = 0; channel < width; ++channel)
        row[channel] = from[head.channels[channel]];
    }
  }
}

}  // namespace kvast
