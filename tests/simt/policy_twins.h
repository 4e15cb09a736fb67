// SPDX-License-Identifier: Apache-2.0
// A cache on the device and one on the CPU for each of its sequences, fed with the same tokens and
// weights: what one keeps the other must keep, token for token and code for code.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "kvast/gpu/convert.cuh"
#include "kvast/kvast.h"
#include "tests/simt/backend.h"
#include "tests/simt/head_tokens.h"
#include "tests/simt/twin_numbers.h"
#include "tests/support/random.h"

namespace kvast::test {

inline const ShapeList kTwinShapes{std::vector<Shape>{
    {.query_heads = 4, .heads = 2, .head_dim = 8}, {.query_heads = 3, .heads = 3, .head_dim = 16}}};

/// Steps of a history; the `slow` number where the environment says KVAST_LONG_TESTS=1.
inline int steps_of(int quick, int slow = 2000) {
  const char* asked = std::getenv("KVAST_LONG_TESTS");
  return asked != nullptr && std::string_view(asked) == "1" ? slow : quick;
}

/// `kFused`: weights are those of attention to random queries, by attend.
template <class Policy, class S, bool kFused = false>
class Twins {
 public:
  static constexpr int kSequences = 2;
  using OnHost = KVCache<Policy, S>;
  using OnDevice = KVCache<Policy, OnGpu<S, TestDevice>>;

  Twins(Policy policy, S storage) : Twins(kTwinShapes, policy, storage) {}
  Twins(const ShapeList& shapes, Policy policy, S storage,
        std::shared_ptr<TwinNumbers> numbers = std::make_shared<RandomNumbers>())
      : numbers_(std::move(numbers)),
        shapes_(shapes),
        policy_(policy),
        storage_(storage),
        device_(shapes_, policy, {storage}, device_pool_, {.sequences = kSequences}) {
    for (int sequence = 0; sequence < kSequences; ++sequence)
      hosts_.push_back(std::make_unique<OnHost>(shapes_, policy, storage, host_pool_));
  }

  /// `counts`: new tokens of each sequence. `more`: their prompt goes on.
  void pass(const std::vector<int>& counts, bool ends_prompt, bool more = false) {
    const int rows = counts[0] + counts[1];
    const bool at_once = passes_++ % 2 == 1;  // all layers together, in every other pass
    std::vector<TokenKind> kinds;
    for (int row = 0; row < rows; ++row) kinds.push_back(TokenKind(random_.below(3)));
    const DeviceVector<TokenKind> device_kinds = on_device(kinds);
    auto pass = device_.begin({.counts = counts,
                               .last_of_prompt = ends_prompt,
                               .more_of_prompt = more,
                               .kinds = device_kinds.data()});
    ASSERT_TRUE(pass) << pass.status().message();
    std::vector<typename OnHost::Pass> host_passes;
    std::vector<int> sequences;
    for (int sequence = 0, row = 0; sequence < kSequences; ++sequence) {
      const int count = counts[static_cast<std::size_t>(sequence)];
      if (count == 0) continue;
      PassOptions options{.tokens = count, .last_of_prompt = ends_prompt, .more_of_prompt = more};
      if (Policy::needs.token_kinds)
        options.kinds = std::span(kinds).subspan(static_cast<std::size_t>(row),
                                                 static_cast<std::size_t>(count));
      auto begun = host(sequence).begin(options);
      ASSERT_TRUE(begun);
      host_passes.push_back(std::move(*begun));
      sequences.push_back(sequence);
      row += count;
    }
    for (int layer = 0; layer < shapes_.layers(); ++layer) {
      const Shape& shape = shapes_[layer];
      const auto keys =
          numbers(TwinNumbers::Kind::keys, layer, counts, shape.heads * shape.head_dim);
      const auto values =
          numbers(TwinNumbers::Kind::values, layer, counts, shape.heads * shape.values());
      const auto device_keys = on_device(keys);
      const auto device_values = on_device(values);
      ASSERT_TRUE(pass->append(layer, device_keys.data(), device_values.data()));
      std::size_t row = 0;
      for (std::size_t at = 0; at < sequences.size(); ++at) {
        host_passes[at].append(layer, keys.data() + row * static_cast<std::size_t>(shape.head_dim),
                               values.data() + row * static_cast<std::size_t>(shape.values()));
        row +=
            static_cast<std::size_t>(counts[static_cast<std::size_t>(sequences[at])] * shape.heads);
      }
      if constexpr (kFused) {
        attend(*pass, host_passes, sequences, layer, counts);
      } else if (Policy::needs.attention) {
        for (std::size_t at = 0; at < sequences.size(); ++at)
          observe(host_passes[at], sequences[at], layer, counts);
        observe(*pass, layer, counts);
      }
      for (auto& one : host_passes) one.commit(layer);
      if (!at_once) {
        ASSERT_TRUE(pass->commit(layer));
      }
      wait();
    }
    if (at_once) {
      ASSERT_TRUE(pass->commit());
      wait();
    }
  }

  void compare() {
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      ASSERT_EQ(device_.length(sequence), host(sequence).length());
      for (int layer = 0; layer < shapes_.layers(); ++layer) {
        const Shape& shape = shapes_[layer];
        int most = 0;
        for (int head = 0; head < shape.heads; ++head) {
          const std::vector<int> kept = host(sequence).kept(layer, head);
          ASSERT_EQ(*device_.kept(sequence, layer, head), kept)
              << "sequence " << sequence << ", layer " << layer << ", head " << head;
          ASSERT_EQ(device_.slots(sequence, layer, head)->size(),
                    host(sequence).slots(layer, head).size())
              << "blocks";
          most = std::max(most, static_cast<int>(kept.size()));
          if constexpr (detail::Chooses<Policy>) compare_choices(sequence, layer, head);
        }
        compare_numbers(sequence, layer, most);
      }
      if (!kFused) compare_states(sequence);
    }
  }
  /// As compare(), of tokens that stayed alone; but where the machines' weights are not the same
  /// bits, other tokens may have stayed whose ranks lie within `margin` of each other, as a part of
  /// the larger. How many.
  int compare_near(float margin) {
    int swapped = 0;
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      EXPECT_EQ(device_.length(sequence), host(sequence).length());
      const auto other = copy_of_host(sequence);
      for (int layer = 0; layer < shapes_.layers(); ++layer) {
        for (int head = 0; head < shapes_[layer].heads; ++head) {
          std::vector<float> mine =
              ranks_of_others(device_, host(sequence).kept(layer, head), sequence, layer, head);
          std::vector<float> its =
              ranks_of_others(*other, *device_.kept(sequence, layer, head), sequence, layer, head);
          EXPECT_EQ(mine.size(), its.size());
          std::sort(mine.begin(), mine.end());
          std::sort(its.begin(), its.end());
          for (std::size_t at = 0; at < std::min(mine.size(), its.size()); ++at, ++swapped)
            EXPECT_NEAR(mine[at], its[at], margin * std::max(mine[at], its[at]));
        }
      }
    }
    return swapped;
  }
  /// The device's cache becomes the host's.
  void load() {
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      ASSERT_TRUE(device_.clear(sequence));
      ASSERT_TRUE(gpu::to_device(host(sequence), device_, sequence));
    }
  }
  OnDevice& device() { return device_; }
  OnHost& host(int sequence) { return *hosts_[static_cast<std::size_t>(sequence)]; }

 private:
  /// Of the new tokens of all sequences, those of each after another.
  std::vector<float> numbers(TwinNumbers::Kind kind, int layer, const std::vector<int>& counts,
                             int width) {
    std::vector<float> all;
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      const std::vector<float> one =
          numbers_->rows(kind, sequence, layer, host(sequence).length(),
                         counts[static_cast<std::size_t>(sequence)], width);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }
  /// At least the slots of any head.
  int stride_for(const std::vector<int>& counts) {
    return std::max(host(0).length() + counts[0], host(1).length() + counts[1]) + 2 * kBlockTokens;
  }
  /// [tokens, query heads, `stride`] of one sequence.
  template <class Slots>
  void fill(std::vector<float>& to, int sequence, int layer, int first, int count, int stride,
            const Slots& slots) {
    const Shape& shape = shapes_[layer];
    for (int head = 0; head < shape.heads; ++head) {
      const std::vector<int> positions = slots(head);
      for (int token = 0; token < count; ++token) {
        for (int member = 0; member < shape.group(); ++member) {
          const int query_head = head * shape.group() + member;
          for (std::size_t slot = 0; slot < positions.size(); ++slot) {
            const int step = host(sequence).length() + token;
            const std::size_t line =
                static_cast<std::size_t>((first + token) * shape.query_heads + query_head);
            to[line * static_cast<std::size_t>(stride) + slot] =
                positions[slot] < 0 || positions[slot] > step
                    ? 0.5F
                    : numbers_->weight(sequence, layer, query_head, step, positions[slot]);
          }
        }
      }
    }
  }
  void observe(typename OnHost::Pass& pass, int sequence, int layer,
               const std::vector<int>& counts) {
    const int count = counts[static_cast<std::size_t>(sequence)];
    const int stride = stride_for(counts);
    std::vector<float> weights(
        static_cast<std::size_t>(count * shapes_[layer].query_heads * stride));
    fill(weights, sequence, layer, 0, count, stride,
         [&](int head) { return host(sequence).slots(layer, head); });
    pass.observe(layer, {weights.data(), shapes_[layer].query_heads * stride, stride});
  }
  void observe(typename OnDevice::Pass& pass, int layer, const std::vector<int>& counts) {
    const int stride = stride_for(counts);
    std::vector<float> weights(
        static_cast<std::size_t>((counts[0] + counts[1]) * shapes_[layer].query_heads * stride));
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      fill(weights, sequence, layer, sequence == 0 ? 0 : counts[0],
           counts[static_cast<std::size_t>(sequence)], stride,
           [&](int head) { return *device_.slots(sequence, layer, head); });
    }
    const auto given = test::on_device(weights);
    ASSERT_TRUE(pass.observe(layer, {given.data(), shapes_[layer].query_heads * stride, stride}));
    wait();
  }
  void attend(typename OnDevice::Pass& pass, std::vector<typename OnHost::Pass>& host_passes,
              const std::vector<int>& sequences, int layer, const std::vector<int>& counts) {
    const Shape& shape = shapes_[layer];
    const int row = shape.query_heads * shape.head_dim;
    const auto queries = numbers(TwinNumbers::Kind::queries, layer, counts, row);
    std::vector<float> output(queries.size());
    const auto device_queries = on_device(queries);
    DeviceVector<float> device_output(queries.size());
    std::ptrdiff_t first = 0;
    for (std::size_t at = 0; at < sequences.size(); ++at) {
      host_passes[at].attend(layer, queries.data() + first, output.data() + first);
      first += counts[static_cast<std::size_t>(sequences[at])] * row;
    }
    ASSERT_TRUE(pass.attend(layer, device_queries.data(), device_output.data()));
    wait();
  }
  void compare_choices(int sequence, int layer, int head) {
    auto chosen = device_.choice(sequence, layer, head);
    ASSERT_TRUE(chosen);
    const auto expected = host(sequence).choice(layer, head);
    EXPECT_EQ(chosen->rule, expected.rule);
    EXPECT_EQ(chosen->window, expected.window);
    if (kFused) return;
    EXPECT_EQ(std::memcmp(chosen->mass, expected.mass, sizeof expected.mass), 0);
  }
  /// The host's states come by way of another cache on the device.
  std::unique_ptr<OnDevice> copy_of_host(int sequence) {
    auto copy =
        std::make_unique<OnDevice>(shapes_, policy_, OnGpu<S, TestDevice>{storage_}, device_pool_,
                                   gpu::CacheOptions{.sequences = kSequences});
    EXPECT_TRUE(gpu::to_device(host(sequence), *copy, sequence));
    return copy;
  }
  /// Ranks of a head's tokens at positions that are not among `kept`.
  std::vector<float> ranks_of_others(OnDevice& cache, const std::vector<int>& kept, int sequence,
                                     int layer, int head) {
    static_assert(kRanksAlone<Policy>);
    std::vector<float> ranks;
    for (const TokenSeen& one : tokens_of(cache, policy_, sequence, layer, head)) {
      if (!std::binary_search(kept.begin(), kept.end(), one.token.position))
        ranks.push_back(one.rank);
    }
    return ranks;
  }
  /// What policies know of tokens, and how they rank them.
  void compare_states(int sequence) {
    const auto other = copy_of_host(sequence);
    for (int layer = 0; layer < shapes_.layers(); ++layer) {
      for (int head = 0; head < shapes_[layer].heads; ++head) {
        const auto mine = tokens_of(device_, policy_, sequence, layer, head);
        const auto theirs = tokens_of(*other, policy_, sequence, layer, head);
        ASSERT_EQ(mine.size(), theirs.size());
        for (std::size_t at = 0; at < mine.size(); ++at) {
          ASSERT_TRUE(same_state(policy_, layer, mine[at].state, theirs[at].state) &&
                      same_rank(mine[at], theirs[at]))
              << "token " << mine[at].token.position << ", sequence " << sequence << ", layer "
              << layer << ", head " << head;
        }
      }
    }
  }
  /// A kernel's rank against that of the host, of the host's state.
  bool same_rank(const TokenSeen& mine, const TokenSeen& theirs) {
    if constexpr (kRanksAlone<Policy>) {
      typename Policy::State state;
      std::memcpy(&state, theirs.state, sizeof state);
      const float expected = policy_.rank(theirs.token, state);
      return bits_as<std::uint32_t>(mine.rank) == bits_as<std::uint32_t>(expected);
    }
    return true;
  }
  void compare_numbers(int sequence, int layer, int most) {
    const Shape& shape = shapes_[layer];
    const auto rows = static_cast<std::size_t>(most * shape.heads);
    if (rows == 0) return;
    const std::size_t key_numbers = rows * static_cast<std::size_t>(shape.head_dim);
    const std::size_t value_numbers = rows * static_cast<std::size_t>(shape.values());
    std::vector<float> keys(key_numbers), values(value_numbers);
    DeviceVector<float> device_keys(key_numbers), device_values(value_numbers);
    host(sequence).export_dense(layer, keys.data(), values.data());
    ASSERT_TRUE(
        device_.export_dense(sequence, layer, most, device_keys.data(), device_values.data()));
    wait();
    ASSERT_TRUE(std::equal(keys.begin(), keys.end(), device_keys.begin())) << "keys";
    ASSERT_TRUE(std::equal(values.begin(), values.end(), device_values.begin())) << "values";
  }

  std::shared_ptr<TwinNumbers> numbers_;
  ShapeList shapes_;
  Policy policy_;
  S storage_;
  int passes_ = 0;
  Random random_{8};  ///< of token kinds
  BlockPool host_pool_;
  gpu::Pool<TestDevice> device_pool_{{.slab_bytes = 4096, .stream = stream()}};
  std::vector<std::unique_ptr<OnHost>> hosts_;
  OnDevice device_;
};

}  // namespace kvast::test
