// SPDX-License-Identifier: Apache-2.0
// Caches that keep tokens in unlike ways do not take each other's.
#include <gtest/gtest.h>

#include "kvast/gpu/convert.cuh"
#include "kvast/kvast.h"
#include "tests/simt/backend.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

const Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 16};

/// Codes of the same format mean something else in another basis, and have other sizes where
/// channels are left out.
template <class HostS, class S>
void check_other_basis(HostS on_host, S on_device) {
  test::begin_schedule(test::kSchedules[0]);
  BlockPool host_pool;
  gpu::Pool<test::TestDevice> device_pool({.slab_bytes = 4096, .stream = test::stream()});
  KVCache<Full, HostS> host(kShape, {}, on_host, host_pool);
  KVCache<Full, OnGpu<S, test::TestDevice>> device(kShape, {}, {on_device}, device_pool);
  test::expect_refused([&] { (void)gpu::to_device(host, device, 0); },
                       {"to_device", "layer 0", "another basis"});
  test::expect_refused([&] { (void)gpu::to_host(device, 0, host); },
                       {"to_host", "layer 0", "another basis"});
}
TEST(GpuConvert, OtherBasesAreRefused) {
  check_other_basis(Kivi<4>{}, Rotated<Kivi<4>>{});
  check_other_basis(Rotated<Kivi<4>>{}, Kivi<4>{});
  check_other_basis(Rotated<Kivi<4>>{{}, 1}, Rotated<Kivi<4>>{{}, 7});
  check_other_basis(AnyStorage(ThinK<Kivi<4>>{}), Kivi<4>{});
}

/// Which states a layer's tokens have depends on settings, where a policy is made of others.
TEST(GpuConvert, OtherStatesAreRefused) {
  test::begin_schedule(test::kSchedules[0]);
  using Policy = PerLayer<Full, H2O>;
  BlockPool host_pool;
  gpu::Pool<test::TestDevice> device_pool({.slab_bytes = 4096, .stream = test::stream()});
  KVCache<Policy, Dense<half>> host(kShape, {{}, {}, LayerSet::first(1)}, {}, host_pool);
  KVCache<Policy, OnGpu<Dense<half>, test::TestDevice>> device(kShape, {{}, {}, LayerSet::first(2)},
                                                               {}, device_pool);
  test::expect_refused([&] { (void)gpu::to_device(host, device, 0); },
                       {"to_device", "layer 1", "another policy", "other states"});
  test::expect_refused([&] { (void)gpu::to_host(device, 0, host); },
                       {"to_host", "layer 1", "another policy", "other states"});
}
TEST(GpuConvert, OtherGroupsAreRefused) {
  test::begin_schedule(test::kSchedules[0]);
  BlockPool host_pool;
  gpu::Pool<test::TestDevice> device_pool({.slab_bytes = 4096, .stream = test::stream()});
  KVCache<Full, Dense<half>> host(kShape, {}, {}, host_pool);
  Shape other = kShape;
  other.query_heads = 8;
  KVCache<Full, OnGpu<Dense<half>, test::TestDevice>> device(other, {}, {}, device_pool);
  test::expect_refused([&] { (void)gpu::to_device(host, device, 0); },
                       {"layer 0 has 2 query heads to a head on the host, and 4 on the device"});
}

}  // namespace
}  // namespace kvast
