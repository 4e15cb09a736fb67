// SPDX-License-Identifier: Apache-2.0
// SPECs on a command line: what they mean, and what is refused with the valid names.
#include "bench/quality/spec.h"

#include <gtest/gtest.h>

#include "bench/quality/any_cache.h"

namespace kvast::quality {
namespace {

constexpr Shape kShape{.layers = 3, .query_heads = 2, .heads = 1, .head_dim = 8};

std::unique_ptr<AnyCache> make(const std::string& policy, const std::string& storage = "f16") {
  static BlockPool pool;
  return make_cache(
      policy, storage,
      {.shape = kShape, .prompt_tokens = 100, .rope = {}, .executor = {}, .pool = &pool});
}
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
    if (one.kind == "storage") {
      EXPECT_NE(make("full", one.name), nullptr) << one.name;
    } else {
      EXPECT_NE(make(one.name), nullptr) << one.name;
    }
  }
}

TEST(Spec, EveryPolicyTakesWhenAndPositions) {
  for (const Listed& one : list_specs()) {
    if (one.kind == "storage") continue;
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

TEST(Spec, QuotesAllowEveryCharacter) {
  Spec spec = Spec::parse("x:a=\"1,2:3+4\",b=5");
  EXPECT_EQ(spec.number("b", 0), 5);
  EXPECT_TRUE(spec.has("a"));
}

}  // namespace
}  // namespace kvast::quality
