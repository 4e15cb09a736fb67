// SPDX-License-Identifier: Apache-2.0
// quantize, dequantize and gather over the caller's own tensors: for engines that keep keys and
// values themselves.
#pragma once

#include "kvast/gpu/device.h"
#include "kvast/gpu/encode_tile.cuh"
#include "kvast/gpu/tensor.h"

namespace kvast::gpu {

namespace detail {

template <class Format, Part kPart>
struct Quantize {
  static constexpr int kThreads = 128;
  using Shared = EncodeShared<kThreads>;
  static constexpr std::size_t kSharedBytes = sizeof(Shared);
  Tensor from{};
  std::byte* to = nullptr;
  int heads = 1;
  int dim = 0;

  /// Grid: blocks of 32 tokens * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    Shared& shared = *reinterpret_cast<Shared*>(block.shared());
    const std::int64_t first = std::int64_t{block.index() / heads} * kBlockTokens;
    const int head = block.index() % heads;
    const PayloadRows<Format, kPart> layout{dim};
    encode_payload<Format, kPart>(
        block, shared, dim, to + block.index() * layout.bytes(), [&](int token, int channel) {
          return read_number(from, from.at(first + token, head) + channel);
        });
  }
};

template <class Format, Part kPart>
struct Dequantize {
  static constexpr int kThreads = 128;
  const std::byte* from = nullptr;
  OutputTensor to{};
  int heads = 1;
  int dim = 0;

  /// Grid: blocks of 32 tokens * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const std::int64_t first = std::int64_t{block.index() / heads} * kBlockTokens;
    const int head = block.index() % heads;
    const PayloadRows<Format, kPart> layout{dim};
    const std::byte* payload = from + block.index() * layout.bytes();
    for (int at = block.thread(); at < kBlockTokens * dim; at += block.threads()) {
      const int token = at / dim;
      const int channel = at % dim;
      write_number(to, to.at(first + token, head) + channel,
                   layout.number(payload, token, channel));
    }
  }
};

struct Gather {
  static constexpr int kThreads = 128;
  const int* tokens = nullptr;
  Tensor from{};
  OutputTensor to{};
  int heads = 1;
  int dim = 0;

  /// Grid: tokens * heads.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int row = block.index() / heads;
    const int head = block.index() % heads;
    const std::int64_t source = from.at(tokens[row], head);
    for (int at = block.thread(); at < dim; at += block.threads())
      write_number(to, to.at(row, head) + at, read_number(from, source + at));
  }
};

inline void check_tokens(const char* what, int tokens, int heads, int dim, Caller caller) {
  require(tokens >= 0 && tokens % kBlockTokens == 0, caller, what, ": tokens is ", tokens,
          ", must be a multiple of 32, at least 0");
  require(heads >= 1 && heads <= 4096, caller, what, ": heads is ", heads,
          ", must lie in [1, 4096]");
  require(dim >= 8 && dim <= 512 && dim % 8 == 0, caller, what, ": dim is ", dim,
          ", must be a multiple of 8 in [8, 512]");
  require(std::int64_t{tokens} / kBlockTokens * heads < (std::int64_t{1} << 31U), caller, what,
          ": ", tokens, " tokens of ", heads, " heads are more than one launch can have");
}

}  // namespace detail

/// Bytes that quantize writes for `tokens` tokens of `heads` heads.
template <class Format, Part kPart>
constexpr std::int64_t quantized_bytes(int tokens, int heads, int dim) {
  return std::int64_t{tokens} / kBlockTokens * heads * PayloadRows<Format, kPart>{dim}.bytes();
}

/// The caller's tensor as codes: a block for each 32 tokens and head, [tokens / 32, heads], with
/// the codes and metadata that the CPU's codec gives keys (a group is 32 tokens of a channel) or
/// values (32 channels of a token), in the device's order: to_tiles (tiles.h) makes the CPU's of
/// them.
///   from    [tokens, heads, dim] device memory, finite numbers
///   to      quantized_bytes, aligned to 4 bytes; written on `stream`
///   tokens  a multiple of 32;  dim a multiple of 8 up to 512
/// Allocates nothing and waits for nothing. Throws Error for what is out of range.
template <Device DeviceType, class Format, Part kPart>
Status quantize(const Tensor& from, int tokens, int heads, int dim, std::byte* to,
                typename DeviceType::Stream stream, Caller caller = Caller::here()) {
  detail::check_tokens("quantize", tokens, heads, dim, caller);
  if (tokens == 0) return {};
  require(to != nullptr, caller, "quantize: to must not be null");
  using Kernel = detail::Quantize<Format, kPart>;
  return DeviceType::launch(
      Kernel{from.checked("quantize: from", heads, dim, caller), to, heads, dim},
      {tokens / kBlockTokens * heads, Kernel::kSharedBytes}, stream);
}

/// And back: [tokens, heads, dim] numbers of what quantize wrote.
template <Device DeviceType, class Format, Part kPart>
Status dequantize(const std::byte* from, int tokens, int heads, int dim, const OutputTensor& to,
                  typename DeviceType::Stream stream, Caller caller = Caller::here()) {
  detail::check_tokens("dequantize", tokens, heads, dim, caller);
  if (tokens == 0) return {};
  require(from != nullptr, caller, "dequantize: from must not be null");
  return DeviceType::launch(
      detail::Dequantize<Format, kPart>{from, to.checked("dequantize: to", heads, dim, caller),
                                        heads, dim},
      {tokens / kBlockTokens * heads, 0}, stream);
}

/// Row t of `to` becomes row tokens[t] of `from`, for all heads. They must not overlap.
///   tokens  [count] device memory, rows of `from`
template <Device DeviceType>
Status gather(const int* tokens, int count, const Tensor& from, int heads, int dim,
              const OutputTensor& to, typename DeviceType::Stream stream,
              Caller caller = Caller::here()) {
  require(count >= 0 && heads >= 1 && dim >= 1 &&
              std::int64_t{count} * heads < (std::int64_t{1} << 31U),
          caller, "gather: count, heads and dim are ", count, ", ", heads, " and ", dim,
          ", must be positive, and count * heads below 2^31");
  if (count == 0) return {};
  require(tokens != nullptr, caller, "gather: tokens must not be null");
  return DeviceType::launch(
      detail::Gather{tokens, from.checked("gather: from", heads, dim, caller),
                     to.checked("gather: to", heads, dim, caller), heads, dim},
      {count * heads, 0}, stream);
}

}  // namespace kvast::gpu
