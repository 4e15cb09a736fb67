// SPDX-License-Identifier: Apache-2.0
// attend's kernels against the reference in double.
#include "tests/simt/attend_layer.h"
#include "tests/simt/option_mixes.h"

namespace kvast::test {
namespace {

constexpr double kHalfTolerance = 2e-3;
constexpr double kBfloatTolerance = 8e-3;  // queries and weights have 8 bits
constexpr double kFloatTolerance = 5e-6;

template <class Format, int kDim, int kRows>
using Kernel = gpu::Attend<Format, kDim, kRows>;

TEST(Attend, LengthsAroundBlocksAndParts) {
  for (const int slots : {1, 2, 31, 32, 33, 63, 64, 65, 129}) {
    const std::string name = std::to_string(slots);
    AttendLayer<F16> halves({.group = 4, .head_dim = 64, .sequences = {{slots}}});
    halves.check<Kernel<F16, 64, 8>, 8>({}, kHalfTolerance, name);
    AttendLayer<F32> floats({.group = 3, .head_dim = 64, .sequences = {{slots}}});
    floats.check<Kernel<F32, 64, 8>, 8>({}, kFloatTolerance, name);
  }
}

/// Each warp has more blocks than its ring has room for: copies go where others may still read.
TEST(Attend, RingsGoRound) {
  const AttendCase one{.group = 3, .head_dim = 64, .sequences = {{650}}};
  AttendLayer<F16> halves(one);
  halves.split = {.workers = 1};
  halves.check<Kernel<F16, 64, 8>, 8>({}, kHalfTolerance);
  AttendLayer<F32> floats(one);
  floats.split = {.workers = 1};
  floats.check<Kernel<F32, 64, 8>, 8>({}, kFloatTolerance);
}

/// More parts of a head than a warp has lanes: what a large device does with one sequence.
TEST(Attend, ManyPartsOfOneHead) {
  AttendLayer<F16> layer({.group = 4, .head_dim = 64, .sequences = {{62 * kBlockTokens - 5}}});
  layer.split = {.workers = 70, .least_blocks = 1};
  layer.check<Kernel<F16, 64, 8>, 8>({}, kHalfTolerance);
}

TEST(Attend, GroupsOfAnySize) {
  for (const int group : {1, 5, 8, 11}) {  // 11: two tiles of rows
    AttendLayer<F16> halves(
        {.group = group, .heads = 2, .head_dim = 128, .sequences = {{70}}, .type = Type::f16});
    halves.check<Kernel<F16, 128, 8>, 8>({}, kHalfTolerance, std::to_string(group));
  }
  AttendLayer<F16> wide({.group = 11, .head_dim = 128, .sequences = {{70}}});
  wide.check<Kernel<F16, 128, 16>, 16>({}, kHalfTolerance);
}

TEST(Attend, HeadsOfAnyWidth) {
  AttendLayer<BF16> third({.group = 3, .head_dim = 96, .sequences = {{67}}, .type = Type::bf16});
  third.check<Kernel<BF16, 96, 8>, 8>({}, kBfloatTolerance, "96");
  AttendLayer<F16> wide({.group = 2, .head_dim = 256, .sequences = {{67}}, .type = Type::f16});
  wide.check<Kernel<F16, 256, 16>, 16>({}, kHalfTolerance, "256");
  AttendLayer<F32> floats({.group = 2, .head_dim = 256, .sequences = {{67}}});
  floats.check<Kernel<F32, 256, 8>, 8>({}, kFloatTolerance, "256 of f32");
  // narrower than the kernel, and values of another width
  AttendLayer<F16> uneven({.group = 2, .head_dim = 120, .value_dim = 72, .sequences = {{67}}});
  uneven.check<Kernel<F16, 128, 8>, 8>({}, kHalfTolerance, "120 and 72");
  AttendLayer<F32> narrow({.group = 2, .head_dim = 8, .value_dim = 40, .sequences = {{67}}});
  narrow.check<Kernel<F32, 64, 8>, 8>({}, kFloatTolerance, "8 and 40");
}

TEST(Attend, BatchesOfAnyLengths) {
  AttendLayer<F16> layer({.group = 3,
                          .heads = 2,
                          .head_dim = 64,
                          .sequences = {{200}, {1}, {33}, {0, 0}, {64}, {40, 0}, {7, 3}},
                          .shuffled = true,
                          .stride = 8});
  layer.check<Kernel<F16, 64, 8>, 8>({}, kHalfTolerance);
}

TEST(Attend, DeadTokensAndBlocks) {
  for (const int dead_block : {0, 1, 2}) {
    const AttendCase one{.group = 4,
                         .head_dim = 64,
                         .sequences = {{80}, {65}, {33}},
                         .dead = 0.5,
                         .dead_block = dead_block};
    AttendLayer<F16> halves(one);
    halves.check<Kernel<F16, 64, 8>, 8>({}, kHalfTolerance, std::to_string(dead_block));
    AttendLayer<F32> floats(one);
    floats.check<Kernel<F32, 64, 8>, 8>({}, kFloatTolerance, std::to_string(dead_block));
  }
}

TEST(Attend, ChunksAreCausalWithinThemselves) {
  const AttendCase one{.group = 3,
                       .heads = 2,
                       .head_dim = 128,
                       .sequences = {{70, 20}, {5, 5}, {97, 33}, {64, 1}},
                       .shuffled = true};
  AttendLayer<F16> layer(one);
  layer.check<Kernel<F16, 128, 16>, 16>({}, kHalfTolerance);
  AttendLayer<F32> floats({.group = 2, .head_dim = 64, .sequences = {{70, 20}, {5, 5}, {40, 33}}});
  floats.check<Kernel<F32, 64, 8>, 8>({}, kFloatTolerance);
}

/// Of one query and of several.
TEST(Attend, Options) {
  each_option_mix({.positions = 200, .scale = 0.3F, .window = 37},
                  [](int bits, const ReferenceRules& rules, const gpu::AttendOptions& options) {
                    const AttendCase one{.group = 3,
                                         .heads = 2,
                                         .head_dim = 64,
                                         .sequences = {{100, 1}, {50, 4}},
                                         .dead = 0.1,
                                         .shuffled = bits < 32,
                                         .skipped = 40};
                    const std::string name = "options " + std::to_string(bits);
                    AttendLayer<F16> halves(one);
                    halves.options = options;
                    halves.check<Kernel<F16, 64, 8>, 8>(rules, kHalfTolerance, name);
                    AttendLayer<F32> floats(one);
                    floats.options = options;
                    floats.check<Kernel<F32, 64, 8>, 8>(rules, kFloatTolerance, name);
                  });
}

TEST(Attend, BiasOfEachSequence) {
  Random random(6);
  const DeviceVector<float> bias = on_device(random.normals(2 * 50));
  AttendLayer<F32> layer({.group = 2, .head_dim = 64, .sequences = {{40}, {50}}});
  layer.options.bias = {.data = bias.data(), .sequence_stride = 50};
  AttendLayer<F32> alone({.group = 2, .head_dim = 64, .sequences = {{40}, {50}}});
  layer.check<Kernel<F32, 64, 8>, 8>({.bias = bias.data()}, INFINITY);
  ReferenceRules rules{.bias = bias.data() + 50};
  const std::vector<float> query = layer.query(1, 1);
  const ReferenceSight sight = layer.reference(1).attend(1, 49, query.data(), rules);
  EXPECT_NEAR(static_cast<double>(layer.log_sum_exp()[3]), sight.log_sum_exp, 1e-4);
}

TEST(Attend, WindowsPassOverBlocksOutOfSight) {
  AttendLayer<F16> layer({.group = 2, .head_dim = 64, .sequences = {{300}, {30}, {310, 3}}});
  layer.options.window = 33;
  ReferenceRules rules;
  rules.window = 33;
  layer.check<Kernel<F16, 64, 8>, 8>(rules, kHalfTolerance);
}

TEST(Attend, NothingToSeeIsZero) {
  AttendLayer<F16> layer({.group = 2, .head_dim = 64, .sequences = {{40}}});
  layer.options.window = 1;  // the query sees itself alone
  ReferenceRules rules;
  rules.window = 1;
  layer.check<Kernel<F16, 64, 8>, 8>(rules, kHalfTolerance);
}

TEST(Attend, CompactedPositionsTurnQueries) {
  for (const bool interleaved : {false, true}) {
    ReferenceRope rope{.interleaved = interleaved};
    DeviceVector<float> frequencies;
    for (int pair = 0; pair < 24; ++pair) {  // of 64 features, 48 turn
      frequencies.push_back(static_cast<float>(std::pow(1e4, -pair / 24.0)));
      rope.frequencies.push_back(static_cast<double>(frequencies.back()));
    }
    rope.scale = 1.1;
    const AttendCase one{.group = 3,
                         .head_dim = 64,
                         .sequences = {{150}, {90, 5}, {12, 12}, {33}},
                         .dead = 0.2,
                         .dead_block = 1,
                         .rope = &rope};
    const gpu::QueryRope turned{.frequencies = frequencies.data(),
                                .width = 48,
                                .pairing = interleaved ? Pairing::interleaved : Pairing::halves,
                                .scale = 1.1F};
    ReferenceRules rules;
    rules.rope = &rope;
    AttendLayer<F16> halves(one);
    halves.rope = turned;
    halves.check<Kernel<F16, 64, 8>, 8>(rules, kHalfTolerance);
    AttendLayer<F32> floats(one);
    floats.rope = turned;
    floats.check<Kernel<F32, 64, 8>, 8>(rules, 2 * kFloatTolerance);
  }
}

TEST(Attend, LargeLogitsDoNotOverflow) {
  AttendLayer<F32> layer({.group = 2, .head_dim = 64, .sequences = {{100}}});
  layer.options.scale = 60.0F;
  ReferenceRules rules;
  rules.scale = 60.0;
  layer.check<Kernel<F32, 64, 8>, 8>(rules, 1e-3);
}

TEST(Attend, OutputsOfAnyType) {
  for (const Type type : {Type::f16, Type::bf16}) {
    AttendLayer<F32> layer(
        {.group = 2, .head_dim = 64, .sequences = {{40}, {41}}, .type = type, .stride = 24});
    layer.check<Kernel<F32, 64, 8>, 8>({}, type == Type::f16 ? 1e-3 : 8e-3);
  }
}

}  // namespace
}  // namespace kvast::test
