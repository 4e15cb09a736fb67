// SPDX-License-Identifier: Apache-2.0
// SPECs on a command line: what they mean, and what is refused with the valid names.
#include "bench/quality/spec.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "bench/quality/any_cache.h"
#include "kvast/calibrate/calibration_file.h"
#include "tests/calibrate/made_up.h"

namespace kvast::quality {
namespace {

constexpr Shape kShape{.layers = 3, .query_heads = 2, .heads = 1, .head_dim = 64};

std::unique_ptr<AnyCache> make(const std::string& policy, const std::string& storage = "f16") {
  static BlockPool pool;
  const auto weights = [] {
    auto made = std::make_shared<WeightCalibration>();
    made->calibration = test::random_calibration(kShape, true);
    made->log_conditions = {3.0, 2.0, 1.0};
    return made;
  };
  return make_cache(policy, storage,
                    {.shape = kShape,
                     .prompt_tokens = 100,
                     .rope = Rope::plain(64, 1e4, Pairing::interleaved),
                     .executor = {},
                     .pool = &pool,
                     .weights = weights});
}

/// A calibration file of the shape, removed at the end.
class SpecWithBasis : public testing::Test {
 protected:
  void SetUp() override { save(test::random_calibration(kShape, true)); }
  void TearDown() override { std::filesystem::remove(file_); }
  void save(const Calibration& calibration) { ASSERT_TRUE(save_calibration(calibration, file_)); }
  std::string eigen(const std::string& keys) const {
    return "eigen:basis=\"" + file_ + "\"" + keys;
  }

  // tests run side by side
  const std::string file_ = testing::TempDir() + "/kvast_spec_test." +
                            testing::UnitTest::GetInstance()->current_test_info()->name();
};

void expect_refused(const std::string& policy, const std::vector<std::string>& parts,
                    const std::string& storage = "f16") {
  try {
    (void)make(policy, storage);
    ADD_FAILURE() << policy << " was not refused";
  } catch (const SpecError& error) {
    const std::string message = error.what();
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks " << part;
    EXPECT_EQ(message.find(".h:"), std::string::npos) << "a user has no source: " << message;
  }
}

TEST(Spec, EveryNameMakesACache) {
  for (const Listed& one : list_specs()) {
    if (one.name == "eigen") {
      expect_refused("full", {"eigen", "basis=FILE is missing"}, one.name);
    } else if (one.kind != "policy") {
      EXPECT_NE(make("full", one.name), nullptr) << one.name;
    } else {
      EXPECT_NE(make(one.name), nullptr) << one.name;
    }
  }
}

TEST(Spec, EveryPolicyTakesWhenAndPositions) {
  for (const Listed& one : list_specs()) {
    if (one.kind != "policy") continue;
    EXPECT_NE(one.keys.find("when="), std::string::npos) << one.name;
    EXPECT_NE(one.keys.find("positions="), std::string::npos) << one.name;
    EXPECT_NE(make(one.name + ":when=prompt"), nullptr);
  }
}

TEST(Spec, ANumberWithAPointIsAPartOfThePrompt) {
  Spec spec = Spec::parse("x:a=0.5,b=0.29,c=7");
  EXPECT_EQ(spec.tokens("a", 0, 1001), 500);
  EXPECT_EQ(spec.tokens("b", 0, 100), 29);  // 0.29 * 100 is a little less than 29
  EXPECT_EQ(spec.tokens("c", 0, 100), 7);
  EXPECT_EQ(spec.tokens("d", 3, 100), 3);
  spec.finish();
}

TEST(Spec, WhatIsNotKnownIsRefusedWithWhatIs) {
  expect_refused("h3o", {"h3o", "h2o", "snapkv", "streaming"});
  expect_refused("h2o:heavier=3", {"heavier", "heavy", "recent"});
  expect_refused("full", {"f8", "f16", "kivi"}, "f8");
  expect_refused("full", {"bits", "5"}, "kivi:bits=5");
  expect_refused("full", {"basis", "turned", "rotated"}, "turned+kivi");
  expect_refused("full", {"v is 5"}, "kivi:bits=2,v=5");
  expect_refused("full", {"SPEC 'int8:first=-1'", "keep.tokens is -1"}, "int8:first=-1");
  expect_refused("full", {"SPEC 'kivi:layers=999'", "layer is 999"}, "kivi:layers=999");
  expect_refused("h2o:when=later", {"when", "later", "full/M"});
  expect_refused("snapkv:kind=median", {"kind", "median", "avg"});
  expect_refused("h2o:budget=10,heavy=2", {"h2o", "budget", "heavy"});
}

TEST(Spec, DefaultsAreThePolicysOwn) {
  for (const Listed& one : list_specs()) {
    if (one.name == "cascading") {
      EXPECT_NE(one.keys.find("reduce=max"), std::string::npos);
    }
    if (one.name == "h2o") {
      EXPECT_NE(one.keys.find("reduce=mean"), std::string::npos);
    }
  }
  EXPECT_NE(make("corm:reduce=any"), nullptr);
  EXPECT_NE(make("random:seed=3"), nullptr);
}

TEST(Spec, CountsMustBeCounts) {
  for (const char* policy : {"h2o", "streaming", "tova", "snapkv", "l2norm", "random", "keydiff"}) {
    expect_refused(std::string(policy) + ":budget=-4", {"budget", "-4"});
    expect_refused(std::string(policy) + ":budget=-0.5", {"budget", "-0.5"});
    expect_refused(std::string(policy) + ":budget=1.5", {"budget", "1.5"});
    expect_refused(std::string(policy) + ":budget=many", {"budget", "many"});
  }
  expect_refused("corm:cap=-2", {"cap", "-2"});
}

TEST(Spec, SettingsThatAPolicyRefusesAreNamed) {
  expect_refused("snapkv:budget=10", {"SnapKV.tokens_kept", "10", "window, 32"});
  expect_refused("adakv:alpha=1.5", {"AdaHeads.safeguard", "1.5"});
  expect_refused("pyramidkv:beta=0.5", {"Pyramid.beta", "0.5"});
  expect_refused("snapkv:pool=4", {"pooling.width", "4", "odd"});
}

TEST_F(SpecWithBasis, BasesStandBeforeFormats) {
  for (const char* ranks :
       {"", ",energy=0.9", ",rank=32", ",share=0.6", ",k=64,v=16", ",k=8,v=64"}) {
    for (const char* format : {"", "+f32", "+kivi:bits=4", "+int8", "+rotated+int4"}) {
      const auto cache = make("h2o:budget=40", eigen(ranks) + format);
      ASSERT_NE(cache, nullptr);
      const bool keys_whole = std::string(ranks) == ",k=64,v=16";
      EXPECT_EQ(cache->wants_unrotated(), !keys_whole) << ranks;
    }
  }
  EXPECT_FALSE(make("full", "think:prune=0.5+" + eigen(",k=64,v=32") + "+int4")->wants_unrotated());
  EXPECT_TRUE(make("full", "lorc:rank=48,least=16+kivi:bits=4")->wants_unrotated());
  EXPECT_TRUE(make("full:positions=unrotated", "think:prune=0.5,pairs=interleaved+kivi:bits=2")
                  ->wants_unrotated());
}

TEST_F(SpecWithBasis, BytesFallAsRanksSay) {
  const auto bytes = [&](const std::string& storage) {
    const auto cache = make("full", storage);
    const std::vector<float> numbers(128 * 2 * 64, 0.5F);
    EXPECT_TRUE(cache->begin({.tokens = 128}));
    std::vector<float> output(numbers.size());
    for (int layer = 0; layer < 3; ++layer) {
      cache->append(layer, numbers.data(), numbers.data());
      cache->attend(layer, numbers.data(), output.data());
      cache->commit(layer);
    }
    return cache->bytes_in_use();
  };
  const std::size_t full = bytes("f16");
  EXPECT_EQ(full - bytes(eigen(",rank=32")), 128U * 3 * 64 * 2);
  EXPECT_EQ(full - bytes(eigen(",k=64,v=16")), 128U * 3 * 48 * 2);
  EXPECT_EQ(full - bytes(eigen(",share=0.75")), 128U * 3 * 32 * 2);
  EXPECT_EQ(bytes("think:prune=0.5"), full) << "no prompt ended";
}

TEST_F(SpecWithBasis, WhatABasisRefusesIsNamed) {
  expect_refused("full", {"eigen", "cannot read", "nowhere"}, "eigen:basis=/nowhere/at/all");
  expect_refused("full", {"give one of energy, share and rank"}, eigen(",energy=0.9,rank=8"));
  expect_refused("full", {"rank is 12", "multiple of 8"}, eigen(",rank=12"));
  expect_refused("full", {"rank is 0"}, eigen(",rank=0"));
  expect_refused("full", {"rank is 72", "[8, 64]"}, eigen(",rank=72"));
  expect_refused("full", {"energy is 1.5"}, eigen(",energy=1.5"));
  expect_refused("full", {"share is 0"}, eigen(",share=0"));
  expect_refused("full", {"least is 40", "most = 32"}, "lorc:rank=32,least=40");
  expect_refused("full", {"give k and v"}, eigen(",k=32"));
  expect_refused("full", {"'think:prune=1'", "ThinK.prune is 1"}, "think:prune=1");
  expect_refused("full", {"of low rank already"}, eigen(",rank=40+") + eigen(",rank=32"));
  expect_refused("full", {"of low rank already"}, eigen(",rank=64+") + eigen(",rank=32"));
  expect_refused("full", {"of low rank already"}, "lorc:rank=48+" + eigen(",rank=32"));
  expect_refused("full", {"chooses channels already"}, "think:prune=0.4+think:prune=0.6");
  expect_refused("full", {"rotates already"}, "rotated+rotated+int4");
  expect_refused("full", {"rotates already"}, "rotated+turbo");
  expect_refused("full", {"cannot read", testing::TempDir()},
                 "eigen:basis=\"" + testing::TempDir() + "\"");
  expect_refused("full", {"pairs", "quarters"}, "think:pairs=quarters");
  expect_refused("full:positions=original", {"before rotation", "Positions::unrotated"},
                 eigen(",rank=32"));
  expect_refused("full:positions=compacted", {"compacted", "basis"}, eigen(",rank=32"));
  expect_refused("full:positions=compacted", {"compacted", "channels"}, "think");
  expect_refused("full", {"channels", "basis"}, "think+rotated+int4");
  Shape other = kShape;
  other.head_dim = 32;
  save(test::random_calibration(other, true));
  expect_refused("full", {"2 query heads on 1 of 32 and 32", "2 query heads on 1 of 64 and 64"},
                 eigen(",rank=32"));
  std::ofstream(file_, std::ios::binary | std::ios::in).seekp(99).put('x');
  expect_refused("full", {"checksum"}, eigen(",rank=32"));
}

TEST(Spec, BytesChooseTheBudget) {
  EXPECT_NE(make("h2o:bytes=200000"), nullptr);
  EXPECT_NE(make("tova:bytes=0.5", "kivi:bits=4,residual=0"), nullptr);
  expect_refused("h2o:bytes=200000,budget=10", {"bytes choose the budget", "given as well"});
  expect_refused("fastgen:bytes=200000", {"bytes choose the budget", "does not have"});
  expect_refused("h2o:bytes=0", {"bytes must be positive"});
  expect_refused("tova:bytes=100", {"100 bytes", "no token"});
}

TEST(Spec, QuotesAllowEveryCharacter) {
  Spec spec = Spec::parse("x:a=\"1,2:3+4\",b=5");
  EXPECT_EQ(spec.number("b", 0), 5);
  EXPECT_TRUE(spec.has("a"));
}

}  // namespace
}  // namespace kvast::quality
