// SPDX-License-Identifier: Apache-2.0
// What is copied out of a cache: forks, and dense keys and values.
#pragma once

#include "kvast/host/check_pass.h"
#include "kvast/kv_cache.h"

namespace kvast {

template <class P, class S, class Arch>
auto KVCache<P, S, Arch>::fork(Caller caller) -> Result<KVCache> {
  require(state_ == Open::none, caller, "fork: a pass is open or torn");
  KVCache copy(*this, ForkTag{});
  Requests requests;
  for (const LayerState& layer : layers_) {
    for (const Head& head : layer.heads) {
      requests.add(layer.plan.side.bytes, head.blocks());
      for (const BlockList* list : {&head.coded, &head.dense}) {
        if (list->data != nullptr) requests.add(list_bytes(list->capacity), 1);
      }
    }
  }
  if (Status status = copy.account_->reserve(requests.all()); !status) return status;
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    std::vector<std::uint16_t>& channels = copy.layers_[layer].channels;
    channels = layers_[layer].channels;
    for (std::size_t head = 0; head < layers_[layer].heads.size(); ++head) {
      const Head& from = layers_[layer].heads[head];
      Head& to = copy.layers_[layer].heads[head];
      if (from.channels != nullptr)
        to.channels = channels.data() + (from.channels - layers_[layer].channels.data());
      share_list(layers_[layer].plan, from.coded, true, to.coded, *copy.account_);
      share_list(layers_[layer].plan, from.dense, false, to.dense, *copy.account_);
    }
  }
  copy.account_->settle();
  shares_ = copy.shares_ = true;
  return Result<KVCache>(std::move(copy));
}

template <class P, class S, class Arch>
void KVCache<P, S, Arch>::export_dense(int layer, OutputView keys, OutputView values,
                                       Caller caller) {
  const LayerState& state = checked(layer, caller);
  const Shape& shape = state.plan.shape;
  require(state.plan.has_payload(), caller, "export_dense: External storage keeps no keys");
  int most = 1;
  for (const Head& head : state.heads) most = std::max(most, head.live());
  if (keys.data != nullptr)
    detail::check_extent("export_dense: keys", keys, most, shape.heads, shape.head_dim, caller);
  if (values.data != nullptr)
    detail::check_extent("export_dense: values", values, most, shape.heads, shape.values(), caller);
  std::vector<Place> order;
  for (int head = 0; head < shape.heads; ++head) {
    const Head& tokens = state.heads[static_cast<std::size_t>(head)];
    order_tokens(tokens, order);
    export_head(state.plan, tokens, head, keys, values, order, levels(), export_scratch_);
  }
}

}  // namespace kvast
