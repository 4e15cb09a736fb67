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

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/kvast.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast::test {

inline const ShapeList kTwinShapes{std::vector<Shape>{
    {.query_heads = 4, .heads = 2, .head_dim = 8}, {.query_heads = 3, .heads = 3, .head_dim = 16}}};

/// A weight that depends on who looks at what alone: slots differ between backends. Few different
/// ones, so that ranks tie.
inline float weight_of(int sequence, int layer, int query_head, int step, int position) {
  std::uint32_t bits = static_cast<std::uint32_t>(position) * 2654435761U ^
                       static_cast<std::uint32_t>(step) * 2246822519U ^
                       static_cast<std::uint32_t>(sequence * 977 + layer * 131 + query_head * 17);
  bits ^= bits >> 15U;
  bits *= 2246822519U;
  bits ^= bits >> 13U;
  return static_cast<float>(bits % 16U) / 64.0F;
}

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
  Twins(const ShapeList& shapes, Policy policy, S storage)
      : shapes_(shapes),
        device_(shapes_, policy, {storage}, device_pool_, {.sequences = kSequences}) {
    for (int sequence = 0; sequence < kSequences; ++sequence)
      hosts_.push_back(std::make_unique<OnHost>(shapes_, policy, storage, host_pool_));
  }

  /// `counts`: new tokens of each sequence.
  void pass(const std::vector<int>& counts, bool ends_prompt) {
    const int rows = counts[0] + counts[1];
    std::vector<TokenKind> kinds;
    for (int row = 0; row < rows; ++row) kinds.push_back(TokenKind(random_.below(3)));
    const DeviceVector<TokenKind> device_kinds = on_device(kinds);
    auto pass = device_.begin(
        {.counts = counts, .last_of_prompt = ends_prompt, .kinds = device_kinds.data()});
    ASSERT_TRUE(pass) << pass.status().message();
    std::vector<typename OnHost::Pass> host_passes;
    std::vector<int> sequences;
    for (int sequence = 0, row = 0; sequence < kSequences; ++sequence) {
      const int count = counts[static_cast<std::size_t>(sequence)];
      if (count == 0) continue;
      PassOptions options{.tokens = count, .last_of_prompt = ends_prompt};
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
          random_.normals(static_cast<std::size_t>(rows * shape.heads * shape.head_dim));
      const auto values =
          random_.normals(static_cast<std::size_t>(rows * shape.heads * shape.values()));
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
      ASSERT_TRUE(pass->commit(layer));
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
    }
  }
  OnDevice& device() { return device_; }
  OnHost& host(int sequence) { return *hosts_[static_cast<std::size_t>(sequence)]; }

 private:
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
                    : weight_of(sequence, layer, query_head, step, positions[slot]);
          }
        }
      }
    }
  }
  void observe(typename OnHost::Pass& pass, int sequence, int layer,
               const std::vector<int>& counts) {
    const int count = counts[static_cast<std::size_t>(sequence)];
    std::vector<float> weights(
        static_cast<std::size_t>(count * shapes_[layer].query_heads * kStride));
    fill(weights, sequence, layer, 0, count, kStride,
         [&](int head) { return host(sequence).slots(layer, head); });
    pass.observe(layer, {weights.data(), shapes_[layer].query_heads * kStride, kStride});
  }
  void observe(typename OnDevice::Pass& pass, int layer, const std::vector<int>& counts) {
    std::vector<float> weights(
        static_cast<std::size_t>((counts[0] + counts[1]) * shapes_[layer].query_heads * kStride));
    for (int sequence = 0; sequence < kSequences; ++sequence) {
      fill(weights, sequence, layer, sequence == 0 ? 0 : counts[0],
           counts[static_cast<std::size_t>(sequence)], kStride,
           [&](int head) { return *device_.slots(sequence, layer, head); });
    }
    const auto given = test::on_device(weights);
    ASSERT_TRUE(pass.observe(layer, {given.data(), shapes_[layer].query_heads * kStride, kStride}));
    wait();
  }
  void attend(typename OnDevice::Pass& pass, std::vector<typename OnHost::Pass>& host_passes,
              const std::vector<int>& sequences, int layer, const std::vector<int>& counts) {
    const Shape& shape = shapes_[layer];
    const int row = shape.query_heads * shape.head_dim;
    const auto queries =
        random_.normals(static_cast<std::size_t>((counts[0] + counts[1]) * row), 2.0);
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

  static constexpr int kStride = 1024;
  ShapeList shapes_;
  Random random_{7};
  BlockPool host_pool_;
  gpu::Pool<TestDevice> device_pool_{{.slab_bytes = 4096, .stream = stream()}};
  std::vector<std::unique_ptr<OnHost>> hosts_;
  OnDevice device_;
};

}  // namespace kvast::test
