// SPDX-License-Identifier: Apache-2.0
// Dense storage: bytes follow the tokens exactly, and numbers stay as they are.
#include "kvast/storage/dense.h"

#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

/// Bytes of one block of both payloads, and of its record without policy state.
template <class Storage>
std::size_t payload_bytes(const Shape& shape) {
  const std::size_t element = std::is_same_v<Storage, Dense<float>> ? 4 : 2;
  return static_cast<std::size_t>(32 * (shape.head_dim + shape.values())) * element;
}

template <class Storage>
class DenseStorage : public testing::Test {};
using Storages = testing::Types<Dense<float>, Dense<half>>;
TYPED_TEST_SUITE(DenseStorage, Storages);

// A record and a list of pointers are small beside a block, so the quotient counts blocks.
TYPED_TEST(DenseStorage, TokensUseExactlyTheirBlocks) {
  const Shape shape{.query_heads = 2, .heads = 2, .head_dim = 128};
  const std::size_t payload = payload_bytes<TypeParam>(shape);
  Duel<Full, TypeParam> duel(shape, {}, {});
  for (int length = 1; length <= 200; ++length) {
    duel.run({}, {}, {}, 0);
    const std::size_t blocks = 2 * static_cast<std::size_t>((length + 31) / 32);
    const std::size_t bytes = duel.cache().bytes_in_use();
    ASSERT_GE(bytes, blocks * payload);
    ASSERT_LT(bytes, blocks * (payload + 320) + 2 * 128) << length << " tokens";
  }
}

TYPED_TEST(DenseStorage, EvictionFreesBlocksAtOnce) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 128};
  const std::size_t payload = payload_bytes<TypeParam>(shape);
  Duel<SnapKV, TypeParam> duel(shape, {.tokens_kept = 40, .window = 8}, {});
  duel.run({.tokens = 500, .last_of_prompt = true}, {}, {}, 0);
  EXPECT_LT(duel.cache().bytes_in_use(), 4 * payload + 4096) << "40 tokens are 2 blocks per head";
  Duel<Corm, TypeParam> ragged(shape, {.window = 30, .recent = 10}, {}, {}, 3);
  for (int step = 0; step < 300; ++step) {
    ragged.run({}, {}, {}, 0);
    std::size_t blocks = 0;
    for (int head = 0; head < 2; ++head)
      blocks += static_cast<std::size_t>((ragged.cache().tokens(0, head) + 31) / 32);
    ASSERT_GE(ragged.cache().bytes_in_use(), blocks * payload);
    ASSERT_LT(ragged.cache().bytes_in_use(), blocks * (payload + 512) + 1024);
  }
  EXPECT_NE(ragged.cache().tokens(0, 0), ragged.cache().tokens(0, 1)) << "heads are ragged";
}

// Whatever moved into whatever hole: the survivors' numbers are those that arrived.
TYPED_TEST(DenseStorage, SurvivorsAreUnchanged) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 40, .value_dim = 24};
  Duel<H2O, TypeParam> duel(shape, {.heavy = 30, .recent = 20}, {});
  duel.rounds_to_half = true;
  for (int step = 0; step < 200; ++step) {
    duel.run({.tokens = step == 0 ? 90 : 1 + step % 3}, {}, {}, 2);
    const auto most = static_cast<std::size_t>(duel.cache().tokens(0, 0));
    std::vector<float> keys(most * 80);
    std::vector<float> values(most * 48);
    duel.cache().export_dense(0, std::span(keys), std::span(values));
    for (int head = 0; head < 2; ++head) {
      const auto& kept = duel.reference().kept(head);
      ASSERT_EQ(kept.size(), most);
      for (std::size_t token = 0; token < most; ++token) {
        for (std::size_t dim = 0; dim < 40; ++dim)
          ASSERT_EQ(keys[token * 80 + static_cast<std::size_t>(head) * 40 + dim],
                    kept[token].key[dim]);
        for (std::size_t dim = 0; dim < 24; ++dim)
          ASSERT_EQ(values[token * 48 + static_cast<std::size_t>(head) * 24 + dim],
                    kept[token].value[dim]);
      }
    }
  }
  EXPECT_LE(duel.worst, 1e-5);
}

TEST(DenseStorage, ExportMayAskForOneOfTheTwo) {
  Duel<Full, Dense<float>> duel({.query_heads = 1, .heads = 1, .head_dim = 8}, {}, {});
  duel.run({.tokens = 5});
  std::vector<float> values(40);
  duel.cache().export_dense(0, {}, std::span(values));
  EXPECT_EQ(values, duel.values);
}

}  // namespace
}  // namespace kvast
