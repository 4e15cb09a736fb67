// SPDX-License-Identifier: Apache-2.0
// One head of dense f16 tokens outside of any cache, for timing single verbs.
#pragma once

#include <random>
#include <vector>

#include "kvast/host/append.h"
#include "kvast/host/reserve.h"
#include "kvast/kvast.h"

namespace kvast::bench {

/// `tokens` tokens with random keys and values, and random states of H2O.
class OneHead {
 public:
  static constexpr int kDim = 128;

  explicit OneHead(int tokens, unsigned seed = 1) : account_(pool_), tokens_(tokens) {
    static const H2O::State fresh{};
    layer_.plan = {.shape = {.head_dim = kDim},
                   .formats = Dense<half>{}.plan<Simd>(0),
                   .side = SideLayout::of<H2O::State>(H2O::needs),
                   .fresh_state = reinterpret_cast<const std::byte*>(&fresh),
                   .key_basis = Basis({}, kDim),
                   .value_basis = Basis({}, kDim)};
    layer_.heads.resize(1);
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform;
    keys_.resize(static_cast<std::size_t>(tokens) * kDim);
    for (float& number : keys_) number = uniform(generator);
    fill();
    for (int slot = 0; slot < tokens; ++slot) {
      Block& block = head().block(slot / kBlockTokens);
      state_at<H2O>(layer_.plan.side, block, slot % kBlockTokens).mass = uniform(generator);
    }
  }
  ~OneHead() { empty(); }

  /// The tokens as they were, after eviction.
  void refill() {
    empty();
    fill();
  }

  const LayerPlan& plan() const { return layer_.plan; }
  Head& head() { return layer_.heads[0]; }
  Account& account() { return account_; }
  const std::vector<float>& keys() const { return keys_; }

 private:
  void fill() {
    Requests requests;
    (void)reserve_layer(layer_, tokens_, true, false, false, pool_, requests);
    if (!account_.reserve(requests.all())) return;
    std::vector<int> positions;
    for (int position = 0; position < tokens_; ++position) positions.push_back(position);
    const View view(keys_.data(), kDim, kDim);
    append_tokens(layer_.plan, head(), 0, {.keys = view, .values = view, .positions = positions},
                  account_);
  }
  void empty() {
    clear_list(layer_.plan, head().dense, false, account_);
    account_.settle();
  }

  BlockPool pool_;
  Account account_;
  LayerState layer_;
  int tokens_;
  std::vector<float> keys_;
};

}  // namespace kvast::bench
