// SPDX-License-Identifier: Apache-2.0
// SPECs of caches on a GPU: what a device is asked for, and what is refused and why. No device is
// needed: this one only remembers.
#include "bench/quality/on_device.h"

#include <gtest/gtest.h>

#include "bench/quality/spec.h"

namespace kvast::quality {
namespace {

constexpr Shape kShape{.layers = 3, .query_heads = 2, .heads = 1, .head_dim = 64};

struct Remembering final : CacheDevice {
  std::unique_ptr<DeviceCache> make(const DevicePolicy& policy,
                                    const DeviceCacheSetup& setup) override {
    asked = setup;
    asked_policy = policy;
    return nullptr;
  }
  DeviceCacheSetup asked;
  DevicePolicy asked_policy;
};

Remembering ask(const std::string& policy, const std::string& storage) {
  Remembering device;
  BlockPool pool;
  try {  // a cache that is null was not made: make_cache says that it does not know the policy
    (void)make_cache(policy, storage,
                     {.shape = kShape,
                      .prompt_tokens = 100,
                      .rope = Rope::plain(64, 1e4, Pairing::interleaved),
                      .executor = {},
                      .pool = &pool,
                      .device = &device});
  } catch (const SpecError& error) {
    if (device.asked.storage.layers.empty()) throw;
  }
  return device;
}

std::string refusal(const std::string& policy, const std::string& storage) {
  try {
    (void)ask(policy, storage);
  } catch (const SpecError& error) {
    return error.what();
  }
  return "";
}

TEST(OnDevice, PoliciesThatRankTokensRunThere) {
  for (const char* name : {"full", "streaming", "l2norm", "random", "h2o", "corm", "tova",
                           "scissorhands", "keyformer", "snapkv", "adakv", "fastgen"})
    EXPECT_EQ(refusal(name, "f16"), "") << name;
  EXPECT_EQ(std::get<H2O>(ask("h2o:heavy=7,recent=3", "f16").asked_policy).heavy, 7);
}

TEST(OnDevice, OthersAreRefusedByName) {
  const auto expect = [](const char* name, const char* why) {
    EXPECT_EQ(refusal(name, "f16"),
              std::string("SPEC '") + name + "': this policy does not run on a GPU: " + why);
  };
  expect("keydiff", "it looks at keys and values");
  expect("lagkv", "it looks at keys and values");
  expect("expected", "it needs moments of the queries");
  expect("roco", "it ranks whole heads, not tokens one by one");
  expect("cascading", "it ranks whole heads, not tokens one by one");
  expect("dbudgetkv", "it ranks whole heads, not tokens one by one");
}

TEST(OnDevice, StoragesAreFormatsAndSettings) {
  const auto formats = [](const std::string& storage) {
    const DeviceStorage asked = ask("full", storage).asked.storage;
    return asked.keys + "/" + asked.values;
  };
  EXPECT_EQ(formats("f32"), "f32/f32");
  EXPECT_EQ(formats("bf16"), "bf16/bf16");
  EXPECT_EQ(formats("kivi:bits=2"), "int2/int2");
  EXPECT_EQ(formats("kivi:k=8,v=4"), "int8/int4");
  EXPECT_EQ(formats("rotated+kivi:k=4,v=2"), "int4/int2");
  EXPECT_EQ(formats("int8"), "int8/int8");
  EXPECT_EQ(formats("fp8"), "fp8-e4m3/fp8-e4m3");
  EXPECT_EQ(formats("int4:layers=0/1/2"), "f16/f16");
  const DeviceStorage asked =
      ask("full", "rotated:seed=5+kivi:bits=4,residual=16,first=2,layers=0").asked.storage;
  EXPECT_EQ(asked.keys, "int4");
  ASSERT_EQ(asked.layers.size(), 3U);
  EXPECT_FALSE(asked.layers[0].coded);
  EXPECT_FALSE(asked.layers[0].rotates);
  EXPECT_TRUE(asked.layers[2].coded);
  EXPECT_TRUE(asked.layers[2].rotates);
  EXPECT_EQ(asked.layers[2].seed, 5U);
  EXPECT_EQ(asked.layers[2].residual, 16);
  EXPECT_EQ(asked.layers[2].first_coded, 2);
}

TEST(OnDevice, OtherStoragesAreRefusedByName) {
  const auto expect = [](const char* name, const char* why) {
    const std::string said = refusal("full", name);
    EXPECT_TRUE(said.starts_with(std::string("SPEC '") + name +
                                 "': this storage does not run on a GPU: " + why))
        << said;
  };
  expect("kivi:bits=3", "no attention there reads keys in int3 and values in int3; pairs that");
  expect("kivi:k=2,v=8", "no attention there reads keys in int2 and values in int8");
  expect("fp8:kind=e5m2", "no attention there reads keys in fp8-e5m2");
  expect("turbo:bits=4", "no attention there reads keys in code4");
  expect("think:prune=0.4+kivi:bits=4", "it drops channels of keys");
}

TEST(OnDevice, PositionsGoAlong) {
  const DeviceCacheSetup asked = ask("streaming:positions=compacted", "f16").asked;
  EXPECT_EQ(asked.positions, Positions::compacted);
  EXPECT_EQ(asked.rope.width, 64);
  EXPECT_TRUE(ask("streaming", "f16").asked.rope.empty());
}

}  // namespace
}  // namespace kvast::quality
