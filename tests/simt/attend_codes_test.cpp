// SPDX-License-Identifier: Apache-2.0
// attend on codes against the reference in double, which is given what they decode to: every pair
// of formats, group, width and length, and channels that are unlike each other.
#include "tests/simt/attend_layer.h"

namespace kvast::test {
namespace {

constexpr double kTolerance = 2e-3;

template <class Kept>
class AttendCodes : public testing::Test {};
using Pairs = testing::Types<gpu::Codes<Int<8>, Int<8>>, gpu::Codes<Int<4>, Int<4>>,
                             gpu::Codes<Int<2>, Int<2>>, gpu::Codes<Fp8<E4M3>, Fp8<E4M3>>,
                             gpu::Codes<Int<8>, Int<4>>, gpu::Codes<Int<4>, Int<2>>>;
TYPED_TEST_SUITE(AttendCodes, Pairs);

template <class Kept, int kDim, int kRows>
void check(const AttendCase& one, const std::string& name) {
  AttendLayer<Kept> layer(one);
  layer.split = {.workers = 5, .least_blocks = 3, .dense_cost = 3};
  layer.template check<gpu::Attend<Kept, kDim, kRows>, kRows>({}, kTolerance, name);
}

TYPED_TEST(AttendCodes, GroupsWidthsAndLengths) {
  for (const int group : {1, 3, 4, 8}) {
    for (const int coded : {0, 1, 2, 5}) {
      for (const int waiting : {1, 32, 33}) {
        const SequenceCase sequence{coded * kBlockTokens + waiting, 1, coded};
        const std::string name =
            std::to_string(group) + "/" + std::to_string(coded) + "/" + std::to_string(waiting);
        check<TypeParam, 64, 8>({.group = group, .head_dim = 64, .sequences = {sequence}},
                                name + "/64");
        check<TypeParam, 128, 8>({.group = group, .head_dim = 128, .sequences = {sequence}},
                                 name + "/128");
      }
    }
  }
}

TYPED_TEST(AttendCodes, DeadTokensBlocksAndRaggedBatches) {
  for (const int group : {1, 3, 4, 8}) {
    for (const int dead_block : {0, 2}) {
      AttendCase one{.group = group,
                     .heads = 2,
                     .head_dim = 64,
                     .sequences = {{200, 1, 5}, {1}, {33, 1, 1}, {0, 0}, {64, 1, 0}, {97, 0, 3}},
                     .dead = 0.4,
                     .dead_block = dead_block,
                     .shuffled = true,
                     .type = Type::f16,
                     .stride = 8};
      check<TypeParam, 64, 8>(one, std::to_string(group));
      one.head_dim = 128;
      one.sequences = {{200, 1, 5}, {33, 1, 1}, {7}};
      check<TypeParam, 128, 8>(one, std::to_string(group));
    }
  }
}

/// Each warp has more blocks than its ring has room for.
TYPED_TEST(AttendCodes, RingsGoRound) {
  AttendLayer<TypeParam> layer({.group = 4, .head_dim = 64, .sequences = {{1100, 1, 33}}});
  layer.split = {.workers = 1};
  layer.template check<gpu::Attend<TypeParam, 64, 8>, 8>({}, kTolerance);
}

TYPED_TEST(AttendCodes, ChunksOfQueries) {
  AttendCase one{.group = 3,
                 .heads = 2,
                 .head_dim = 64,
                 .sequences = {{100, 20, 2}, {5, 5}, {97, 33, 2}, {161, 1, 4}},
                 .dead = 0.1};
  check<TypeParam, 64, 16>(one, "chunks/64");
  one.head_dim = 128;
  check<TypeParam, 128, 16>(one, "chunks/128");
}

struct Channels {
  const char* name;
  Size key_offset;
  Size key_size = nullptr;
  Size query_size = nullptr;
};

template <class Kept>
void check(const Channels& channels) {
  AttendCase one{.group = 4,
                 .head_dim = 64,
                 .sequences = {{330, 1, 9}},
                 .type = Type::f16,
                 .key_size = channels.key_size,
                 .key_offset = channels.key_offset,
                 .query_size = channels.query_size};
  check<Kept, 64, 8>(one, channels.name);
  one.head_dim = 128;
  check<Kept, 128, 8>(one, channels.name);
}

/// As keys of models have them whose projections have a bias. What rounding takes from products of
/// a query with scales is large beside what is left of such keys in a softmax.
TYPED_TEST(AttendCodes, KeysFarFromZero) {
  constexpr Channels kOffsets[] = {
      {"20 in one of 16", [](int, int channel) { return channel % 16 == 5 ? 20.0 : 0.0; }},
      {"100 in one of 16", [](int, int channel) { return channel % 16 == 5 ? 100.0 : 0.0; }},
      {"300 in one", [](int, int channel) { return channel == 5 ? 300.0 : 0.0; }},
      {"300 in one of 8", [](int, int channel) { return channel % 8 == 5 ? -300.0 : 0.0; }},
      {"20 in all", [](int, int channel) { return channel % 2 == 0 ? 20.0 : -20.0; }},
  };
  for (const Channels& channels : kOffsets) check<TypeParam>(channels);
}

/// One channel of 16 is loud.
template <int kLoud, int kQuietParts>
double size_of(int channel) {
  return channel % 16 == 5 ? 1.0 * kLoud : 1.0 / kQuietParts;
}
template <int kLoud, int kQuietParts>
Channels loud_and_quiet(const char* name) {
  return {
      .name = name,
      .key_offset = nullptr,
      .key_size = [](int, int channel) { return size_of<kLoud, kQuietParts>(channel); },
      .query_size = [](int, int channel) { return 1.0 / size_of<kLoud, kQuietParts>(channel); }};
}

/// Then all channels count alike, although neither their scales nor the query's numbers are.
TYPED_TEST(AttendCodes, LoudChannelsThatTheQueryHardlyAsksFor) {
  check<TypeParam>(loud_and_quiet<10000, 1>("1e4 and 1"));
  check<TypeParam>(loud_and_quiet<100, 100>("100 and 1/100"));
  check<TypeParam>(loud_and_quiet<300, 300>("300 and 1/300"));
  check<TypeParam>(loud_and_quiet<1000, 1000>("1e3 and 1e-3"));
}

}  // namespace
}  // namespace kvast::test
