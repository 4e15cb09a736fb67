// SPDX-License-Identifier: Apache-2.0
// attend on codes: every option, widths that no kernel is made for, and magnitudes that halves do
// not like.
#include "tests/simt/attend_layer.h"
#include "tests/simt/option_mixes.h"

namespace kvast::test {
namespace {

constexpr double kTolerance = 2e-3;
using Kivi42 = gpu::Codes<Int<4>, Int<2>>;

template <class Kept, int kDim, int kRows = 8>
void check(const AttendCase& one, const ReferenceRules& rules, const gpu::AttendOptions& options,
           const std::string& name) {
  AttendLayer<Kept> layer(one);
  layer.options = options;
  layer.split = {.workers = 5, .least_blocks = 3, .dense_cost = 3};
  layer.template check<gpu::Attend<Kept, kDim, kRows>, kRows>(rules, kTolerance, name);
}

/// Of one query and of several.
TEST(AttendCodesOptions, AloneAndTogether) {
  each_option_mix({.positions = 240, .scale = 0.2F, .window = 70},
                  [](int bits, const ReferenceRules& rules, const gpu::AttendOptions& options) {
                    const AttendCase one{.group = 3,
                                         .heads = 2,
                                         .head_dim = 64,
                                         .sequences = {{150, 1, 3}, {100, 4, 2}},
                                         .dead = 0.1,
                                         .shuffled = bits < 32,
                                         .skipped = 40};
                    check<Kivi42, 64>(one, rules, options, "options " + std::to_string(bits));
                  });
}

TEST(AttendCodesOptions, WindowsPassOverCodesOutOfSight) {
  ReferenceRules rules;
  rules.window = 33;
  check<Kivi42, 64>(
      {.group = 2, .head_dim = 64, .sequences = {{300, 1, 8}, {60, 1, 1}, {310, 3, 9}}}, rules,
      {.window = 33}, "window");
}

TEST(AttendCodesOptions, GroupsOfSeveralTiles) {
  check<Kivi42, 64, 16>({.group = 11, .head_dim = 64, .sequences = {{70, 1, 2}}}, {}, {}, "11");
}

template <class Kept>
class AttendCodesWidths : public testing::Test {};
using Kinds = testing::Types<gpu::Codes<Int<8>, Int<8>>, gpu::Codes<Int<2>, Int<2>>,
                             gpu::Codes<Fp8<E4M3>, Fp8<E4M3>>>;
TYPED_TEST_SUITE(AttendCodesWidths, Kinds);

TYPED_TEST(AttendCodesWidths, OfAnyHead) {
  const auto with = [](int head_dim, int value_dim) {
    return AttendCase{.group = 3,
                      .head_dim = head_dim,
                      .value_dim = value_dim,
                      .sequences = {{135, 1, 3}, {40, 1, 1}}};
  };
  check<TypeParam, 64>(with(8, 40), {}, {}, "8 and 40");
  check<TypeParam, 64>(with(48, 24), {}, {}, "48 and 24");
  check<TypeParam, 96>(with(96, 96), {}, {}, "96");
  check<TypeParam, 96>(with(80, 72), {}, {}, "80 and 72");
  check<TypeParam, 256>(with(256, 256), {}, {}, "256");
  check<TypeParam, 256>(with(192, 136), {}, {}, "192 and 136");
}

/// What sizes a block's channels have.
struct Sizes {
  const char* name;
  Size keys;
  Size values;
  float scale;  ///< so that logits are of size 1
};

constexpr Sizes kSizes[] = {
    {"quiet", [](int, int) { return 1e-3; }, [](int, int) { return 1e-3; }, 40.0F},
    {"loud", [](int, int) { return 1e3; }, [](int, int) { return 1e3; }, 4e-5F},
    {"very loud", [](int, int) { return 8e3; }, [](int, int) { return 8e3; }, 5e-6F},
    {"loud and quiet blocks", [](int block, int) { return block % 2 == 0 ? 1e-3 : 1e3; },
     [](int block, int) { return block % 2 == 0 ? 1e3 : 1e-3; }, 4e-5F},
    {"loud and quiet channels", [](int, int channel) { return channel % 7 == 3 ? 1e3 : 1e-3; },
     [](int, int channel) { return channel % 5 == 3 ? 1e3 : 1e-3; }, 1e-4F},
};

template <class Kept>
class AttendCodesSizes : public testing::Test {};
TYPED_TEST_SUITE(AttendCodesSizes, Kinds);

TYPED_TEST(AttendCodesSizes, NothingOverflowsOrVanishes) {
  for (const Sizes& sizes : kSizes) {
    ReferenceRules rules;
    rules.scale = static_cast<double>(sizes.scale);
    check<TypeParam, 64>({.group = 4,
                          .head_dim = 64,
                          .sequences = {{200, 1, 5}, {170, 1, 4}},
                          .key_size = sizes.keys,
                          .value_size = sizes.values},
                         rules, {.scale = sizes.scale}, sizes.name);
  }
}

/// Tokens that one with a thousand times the weight stands beside count all the same: their weights
/// in halves would be the smallest ones.
TYPED_TEST(AttendCodesSizes, SmallWeightsBesideALargeOneCount) {
  DeviceVector<float> bias(700, 0.0F);
  bias[0] = 9.0F;
  bias[100] = 9.0F;
  ReferenceRules rules;
  rules.scale = 0.02;
  rules.bias = bias.data();
  check<TypeParam, 64>({.group = 2,
                        .head_dim = 64,
                        .sequences = {{650, 1, 20}},
                        .value_size = [](int block, int) { return block % 4 == 0 ? 1e-2 : 0.3; }},
                       rules, {.scale = 0.02F, .bias = {.data = bias.data()}}, "one outweighs");
}

}  // namespace
}  // namespace kvast::test
