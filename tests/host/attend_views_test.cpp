// SPDX-License-Identifier: Apache-2.0
// The caller's tensors may be strided, f16 or bf16, on the way in and on the way out.
#include "kvast/core/view.h"

#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr int kTokens = 50;
constexpr Shape kShape{.query_heads = 4, .heads = 2, .head_dim = 40, .value_dim = 24};

/// A packed tensor [kTokens, heads, dim] laid out with gaps (filled with NaN), in any type.
template <class Number>
struct Laid {
  std::vector<Number> memory;
  std::int64_t token_stride;
  std::int64_t head_stride;

  Laid(const std::vector<float>& packed, int heads, int dim, bool heads_first, int gap) {
    head_stride = heads_first ? static_cast<std::int64_t>(kTokens) * (dim + gap) : dim + gap;
    token_stride = heads_first ? dim + gap : heads * head_stride + gap;
    const std::int64_t most = std::max(heads * head_stride, kTokens * token_stride) + gap;
    memory.assign(static_cast<std::size_t>(most), number(NAN));
    for (int token = 0; token < kTokens; ++token) {
      for (int head = 0; head < heads; ++head) {
        for (int at = 0; at < dim; ++at) {
          memory[place(token, head, at)] =
              number(packed[static_cast<std::size_t>((token * heads + head) * dim + at)]);
        }
      }
    }
  }
  std::size_t place(int token, int head, int at) const {
    return static_cast<std::size_t>(token * token_stride + head * head_stride + at);
  }
  static Number number(float value) {
    if constexpr (std::is_same_v<Number, half>) {
      return to_half(value);
    } else if constexpr (std::is_same_v<Number, bfloat16>) {
      return to_bfloat16(value);
    } else {
      return value;
    }
  }
  View view() const { return {memory.data(), token_stride, head_stride}; }
  OutputView output() { return {memory.data(), token_stride, head_stride}; }
};

struct Tensors {
  std::vector<float> keys, values, queries;
  explicit Tensors(std::uint64_t seed) {
    test::Random random(seed);
    keys = random.normals(kTokens * 2 * 40);
    values = random.normals(kTokens * 2 * 24);
    queries = random.normals(kTokens * 4 * 40);
    // numbers that half and bfloat16 hold exactly, so that all types must give the same bits
    for (std::vector<float>* numbers : {&keys, &values, &queries}) {
      for (float& number : *numbers) number = to_float(to_half(to_float(to_bfloat16(number))));
    }
  }
};

void run(KVCache<Full, Dense<float>>& cache, View keys, View values, View queries,
         OutputView output) {
  auto pass = cache.begin({.tokens = kTokens, .last_of_prompt = true});
  pass->append(0, keys, values);
  pass->attend(0, queries, output);
  pass->commit(0);
}

template <class Number>
void expect_same_bits(bool heads_first, int gap) {
  const Tensors tensors(1);
  BlockPool pool;
  KVCache<Full, Dense<float>> packed(kShape, {}, {}, pool);
  KVCache<Full, Dense<float>> laid(kShape, {}, {}, pool);
  std::vector<float> wanted(kTokens * 4 * 24);
  run(packed, std::span(tensors.keys), std::span(tensors.values), std::span(tensors.queries),
      std::span(wanted));
  const Laid<Number> keys(tensors.keys, 2, 40, heads_first, gap);
  const Laid<Number> values(tensors.values, 2, 24, heads_first, gap);
  const Laid<Number> queries(tensors.queries, 4, 40, heads_first, gap);
  const std::vector<float> marks(wanted.size(), -77.0F);
  Laid<Number> output(marks, 4, 24, heads_first, gap);
  const Laid<Number> untouched = output;
  run(laid, keys.view(), values.view(), queries.view(), output.output());
  std::size_t written = 0;
  for (int token = 0; token < kTokens; ++token) {
    for (int head = 0; head < 4; ++head) {
      for (int dim = 0; dim < 24; ++dim, ++written) {
        ASSERT_EQ(output.memory[output.place(token, head, dim)],
                  Laid<Number>::number(wanted[written]));
      }
    }
  }
  for (std::size_t at = 0; at < output.memory.size(); ++at) {
    // gaps are NaN before and after; the bits tell, since NaN is unequal to itself
    if (std::memcmp(&output.memory[at], &untouched.memory[at], sizeof(Number)) == 0) ++written;
  }
  EXPECT_EQ(written, output.memory.size()) << "something beside the rows was written";
}

TEST(Views, StridedTensorsGiveTheSameBits) {
  expect_same_bits<float>(false, 0);
  expect_same_bits<float>(false, 3);
  expect_same_bits<float>(true, 0);
  expect_same_bits<float>(true, 5);
}

TEST(Views, HalfTensorsGiveTheSameBits) {
  expect_same_bits<half>(false, 0);
  expect_same_bits<half>(true, 3);
}

TEST(Views, Bfloat16TensorsGiveTheSameBits) {
  expect_same_bits<bfloat16>(false, 0);
  expect_same_bits<bfloat16>(true, 3);
}

TEST(Views, SpansOfHalvesCarryTheirSize) {
  BlockPool pool;
  KVCache<Full, Dense<half>> cache(kShape, {}, {}, pool);
  const std::vector<half> keys(80);
  const std::vector<half> values(48);
  const std::vector<half> queries(160);
  std::vector<half> output(96, half{0x7E00});
  auto pass = cache.begin({});
  pass->append(0, std::span(keys), std::span(values));
  pass->attend(0, std::span(queries), std::span(output));
  pass->commit(0);
  for (const half number : output) EXPECT_EQ(number.bits, 0U);
}

TEST(Views, ExportWritesStridedHalves) {
  const Tensors tensors(2);
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(kShape, {}, {}, pool);
  std::vector<float> output(kTokens * 4 * 24);
  run(cache, std::span(tensors.keys), std::span(tensors.values), std::span(tensors.queries),
      std::span(output));
  const std::vector<float> marks(tensors.keys.size(), -77.0F);
  Laid<half> keys(marks, 2, 40, true, 7);
  cache.export_dense(0, keys.output(), {});
  for (int token = 0; token < kTokens; ++token) {
    for (int head = 0; head < 2; ++head) {
      for (int dim = 0; dim < 40; ++dim) {
        ASSERT_EQ(keys.memory[keys.place(token, head, dim)],
                  to_half(tensors.keys[static_cast<std::size_t>((token * 2 + head) * 40 + dim)]));
      }
    }
  }
}

TEST(Views, GatherCopiesRows) {
  test::Random random(3);
  const auto source = random.normals(10 * 2 * 8);
  std::vector<float> target(3 * 2 * 8, 0.0F);
  const int tokens[] = {9, 0, 4};
  for (int head = 0; head < 2; ++head)
    gather(tokens, View(source.data(), 16, 8), head, 8, OutputView(target.data(), 16, 8));
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t at = 0; at < 16; ++at)
      EXPECT_EQ(target[row * 16 + at], source[static_cast<std::size_t>(tokens[row]) * 16 + at]);
  }
}

}  // namespace
}  // namespace kvast
