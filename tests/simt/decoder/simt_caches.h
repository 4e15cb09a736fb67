// SPDX-License-Identifier: Apache-2.0
// Caches of a few SPECs in the simt runner: the evaluator's, of which a GPU has all.
#pragma once

#include "bench/quality/gpu/device_cache.cuh"
#include "tests/simt/backend.h"
#include "tests/simt/decoder/twin_decoders.h"

namespace kvast::test {

/// Heads of at most 64 features: other kernels need not be compiled.
struct NarrowDevice : TestDevice {
  using AttendWidths = std::integer_sequence<int, 64>;
};

template <class PolicyType, class KeptLayers>
struct Compiled {
  using Policy = PolicyType;
  using Kept = KeptLayers;
};

/// Makes caches of these cells, which are Compiled.
template <class... Cells>
class SimtCaches final : public quality::CacheDevice {
 public:
  std::unique_ptr<quality::DeviceCache> make(const quality::DevicePolicy& policy,
                                             const quality::DeviceCacheSetup& setup) override {
    std::unique_ptr<quality::DeviceCache> made;
    (void)((made = made_as<Cells>(policy, setup)) || ...);
    require(made != nullptr, Caller::here(), "this test did not compile the cell");
    return made;
  }

 private:
  template <class Cell>
  std::unique_ptr<quality::DeviceCache> made_as(const quality::DevicePolicy& policy,
                                                const quality::DeviceCacheSetup& setup) {
    const auto* held = std::get_if<typename Cell::Policy>(&policy);
    if (held == nullptr || !quality::keeps<typename Cell::Kept>(setup.storage)) return nullptr;
    return std::make_unique<
        quality::TypedDeviceCache<typename Cell::Policy, typename Cell::Kept, NarrowDevice>>(
        *held, setup, pool_);
  }

  gpu::Pool<NarrowDevice> pool_{{.slab_bytes = 4096, .stream = stream()}};
};

/// Sanitizers take several times as long.
inline constexpr int kDecoderSteps =
#if defined(__SANITIZE_ADDRESS__)
    8;
#else
    24;
#endif

/// A model whose weights f16 holds, and a cell in the default order of threads.
template <class Caches>
void check_in_simt(const DecoderCell& cell) {
  begin_schedule(kSchedules[0]);
  const decoder::TinyModel tiny(decoder::TensorType::f16, {.embedding = 32, .feed_forward = 40});
  const std::vector<std::byte> file = tiny.writer.finish();
  Caches caches;
  check_decoders<NarrowDevice>(decoder::Gguf(file), cell, caches, 52, kDecoderSteps, stream());
}

}  // namespace kvast::test
