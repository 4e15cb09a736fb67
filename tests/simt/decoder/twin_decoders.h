// SPDX-License-Identifier: Apache-2.0
// The decoder with all of it on a device and the decoder on the CPU, with caches of the same SPECs,
// step by step from the same state: what the model says must agree, and what the policy keeps.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bench/quality/on_device.h"
#include "examples/decoder/gpu/device_llama.cuh"
#include "examples/decoder/llama.h"
#include "kvast/core/pool.h"
#include "tests/examples/decoder/tiny_model.h"
#include "tests/simt/backend.h"

namespace kvast::test {

/// One cell of policies x storages, and how far the machines may be apart.
struct DecoderCell {
  std::string policy;
  std::string storage;
  double tolerance = 1e-4;  ///< of logits from the same state, root mean square over that of logits
  double near_ties = 0;     ///< share of (pass, layer, head) in which another token may stay
};

/// Of two rows of logits.
inline double relative_error(std::span<const float> actual, std::span<const float> expected) {
  double squares = 0;
  double differences = 0;
  for (std::size_t at = 0; at < expected.size(); ++at) {
    const double wanted = static_cast<double>(expected[at]);
    const double difference = static_cast<double>(actual[at]) - wanted;
    squares += wanted * wanted;
    differences += difference * difference;
  }
  return std::sqrt(differences / squares);
}

template <class DeviceType>
class TwinDecoders {
 public:
  /// `file` has weights that f16 holds exactly, or `cell.tolerance` allows for their rounding.
  TwinDecoders(const decoder::Gguf& file, const DecoderCell& cell, quality::CacheDevice& caches,
               int prompt, typename DeviceType::Stream stream, Executor executor = serial())
      : cell_(cell),
        host_(file, executor, decoder::Precision::exact),
        device_(decoder::LlamaWeights(file), stream) {
    quality::CacheSetup setup{.shape = host_.config().shape(),
                              .prompt_tokens = prompt,
                              .rope = host_.config().rope,
                              .executor = executor,
                              .pool = &pool_};
    host_cache_ = quality::make_cache(cell.policy, cell.storage, setup);
    setup.device = &caches;
    device_cache_ = quality::make_cache(cell.policy, cell.storage, setup);
  }

  /// Runs both and compares the logits of all rows, from the state that they were in.
  void pass(const std::vector<int>& tokens, bool ends_prompt, double tolerance) {
    std::vector<int> rows(tokens.size());
    std::vector<TokenKind> kinds;
    for (std::size_t row = 0; row < tokens.size(); ++row) {
      rows[row] = static_cast<int>(row);
      kinds.push_back(static_cast<TokenKind>(tokens[row] % 3));
    }
    PassOptions options{.last_of_prompt = ends_prompt, .kinds = kinds};
    const int position = host_cache_->length();
    const Status host = host_.forward(*host_cache_, tokens, position, options, rows);
    ASSERT_TRUE(host) << host.message();
    const Status device = device_.forward(*device_cache_, tokens, position, options, rows);
    ASSERT_TRUE(device) << device.message();
    ASSERT_EQ(device_cache_->length(), host_cache_->length());
    for (const int row : rows) {
      const double error = relative_error(device_.logits(row), host_.logits(row));
      worst_ = std::max(worst_, error);
      ASSERT_LE(error, tolerance) << "position " << position + row;
    }
  }
  void pass(const std::vector<int>& tokens, bool ends_prompt) {
    pass(tokens, ends_prompt, cell_.tolerance);
  }

  /// Counts heads that kept other tokens on one machine. Where near ties are allowed, at most
  /// `swapped` tokens of a head may have changed places.
  void compare_kept(int swapped) {
    const int most_apart = cell_.near_ties > 0 ? 2 * swapped : 0;
    const Shape shape = host_.config().shape();
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int head = 0; head < shape.heads; ++head, ++heads_) {
        const std::vector<int> expected = host_cache_->kept(layer, head);
        const std::vector<int> actual = device_cache_->kept(layer, head);
        std::vector<int> apart;
        std::set_symmetric_difference(expected.begin(), expected.end(), actual.begin(),
                                      actual.end(), std::back_inserter(apart));
        ASSERT_LE(static_cast<int>(apart.size()), most_apart)
            << "length " << host_cache_->length() << ", layer " << layer << ", head " << head;
        heads_apart_ += apart.empty() ? 0 : 1;
      }
    }
  }
  /// The device's cache becomes the CPU's.
  void load() {
    const Status status = dynamic_cast<quality::DeviceCache&>(*device_cache_).load(*host_cache_);
    ASSERT_TRUE(status) << status.message();
  }

  double worst() const { return worst_; }
  double share_apart() const { return heads_ > 0 ? static_cast<double>(heads_apart_) / heads_ : 0; }
  int vocabulary() const { return host_.config().vocabulary; }
  quality::AnyCache& host_cache() { return *host_cache_; }
  quality::AnyCache& device_cache() { return *device_cache_; }

 private:
  DecoderCell cell_;
  BlockPool pool_;
  decoder::Llama host_;
  decoder::DeviceLlama<DeviceType> device_;
  std::unique_ptr<quality::AnyCache> host_cache_, device_cache_;
  double worst_ = 0;
  int heads_ = 0, heads_apart_ = 0;
};

inline std::vector<int> decoder_tokens(int count, int vocabulary) {
  std::mt19937 random(5);
  std::vector<int> tokens(static_cast<std::size_t>(count));
  for (int& token : tokens) token = static_cast<int>(random() % static_cast<unsigned>(vocabulary));
  return tokens;
}

/// A prompt, then `steps` tokens from the CPU's state each, then `steps` / 4 freely: near ties and
/// codes at the edge of rounding may have come out otherwise by then.
template <class DeviceType>
void check_decoders(const decoder::Gguf& file, const DecoderCell& cell,
                    quality::CacheDevice& caches, int prompt, int steps,
                    typename DeviceType::Stream stream) {
  TwinDecoders<DeviceType> twins(file, cell, caches, prompt, stream);
  const std::vector<int> tokens = decoder_tokens(prompt + steps + steps / 4, twins.vocabulary());
  ASSERT_NO_FATAL_FAILURE(twins.pass({tokens.begin(), tokens.begin() + prompt}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare_kept(2));
  for (int step = 0; step < steps; ++step) {
    ASSERT_NO_FATAL_FAILURE(twins.load());
    const int token = tokens[static_cast<std::size_t>(prompt + step)];
    ASSERT_NO_FATAL_FAILURE(twins.pass({token}, false));
    ASSERT_NO_FATAL_FAILURE(twins.compare_kept(1));
  }
  EXPECT_LE(twins.share_apart(), cell.near_ties);
  std::printf("%s, %s: logits at most %.1e apart, %.3f of heads\n", cell.policy.c_str(),
              cell.storage.c_str(), twins.worst(), twins.share_apart());
  for (int step = prompt + steps; step < static_cast<int>(tokens.size()); ++step) {
    const int token = tokens[static_cast<std::size_t>(step)];
    ASSERT_NO_FATAL_FAILURE(twins.pass({token}, false, 0.1));
  }
  EXPECT_GT(twins.device_cache().bytes_in_use(), 0U);
  EXPECT_GE(twins.device_cache().bytes_peak(), twins.device_cache().bytes_in_use());
  EXPECT_NEAR(twins.device_cache().kept_mean(), twins.host_cache().kept_mean(), 1.0);
}

}  // namespace kvast::test
