// SPDX-License-Identifier: Apache-2.0
// Caches on a GPU by their SPECs: what of a policy and a storage runs there. Nothing here needs
// CUDA; a program without it has no CacheDevice.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "bench/quality/any_cache.h"
#include "kvast/policy/ada_heads.h"
#include "kvast/policy/corm.h"
#include "kvast/policy/fastgen.h"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/keyformer.h"
#include "kvast/policy/l2_norm.h"
#include "kvast/policy/layer_budgets.h"
#include "kvast/policy/random.h"
#include "kvast/policy/scissorhands.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"
#include "kvast/policy/tova.h"
#include "kvast/storage/any_storage.h"

namespace kvast::quality {

/// The policies of SPECs that run on a GPU.
using DevicePolicy = std::variant<Full, StreamingLLM, L2Norm, Random, H2O, Corm, TOVA, Scissorhands,
                                  Keyformer, SnapKV, AdaHeads<SnapKV>, Pyramid<SnapKV>, FastGen>;

template <class Policy, class Variant>
struct IsAmong : std::false_type {};
template <class Policy, class... Policies>
struct IsAmong<Policy, std::variant<Policies...>>
    : std::bool_constant<(std::is_same_v<Policy, Policies> || ...)> {};
template <class Policy>
inline constexpr bool kRunsOnDevice = IsAmong<Policy, DevicePolicy>::value;

/// Why a policy does not, as the end of a sentence.
template <class Policy>
constexpr const char* why_not_on_device() {
  if (Policy::needs.query_moments) return "it needs moments of the queries";
  if (Policy::needs.vectors) return "it looks at keys and values";
  return "it ranks whole heads, not tokens one by one";
}

/// A storage whose formats are names: those of sealed blocks, or where nothing is ever sealed of
/// all.
struct DeviceStorage {
  struct Layer {
    bool coded = false;
    int residual = 0;
    int first_coded = 0;
    bool rotates = false;
    std::uint64_t seed = 0;
  };
  std::string keys;
  std::string values;
  std::vector<Layer> layers;
};

/// A policy or storage that does not run on a GPU; what() says why.
struct OffDevice : std::runtime_error {
  OffDevice(bool of_storage, const std::string& why)
      : std::runtime_error(std::string("this ") + (of_storage ? "storage" : "policy") +
                           " does not run on a GPU: " + why),
        storage(of_storage) {}
  bool storage;
};

/// Throws OffDevice.
DeviceStorage device_storage(const AnyStorage& storage, const Shape& shape);

/// A cache whose tokens lie on a device: rows that its append and attend take are in device memory.
/// Its functions throw decoder::DeviceError where the device fails.
class DeviceCache : public AnyCache {
 public:
  /// Takes over the tokens of a cache of the CPU with the same SPECs, in place of its own.
  virtual Status load(AnyCache& host) = 0;
};

/// What a cache on a device is made of.
struct DeviceCacheSetup {
  DeviceStorage storage;
  Shape shape;
  Positions positions = Positions::original;
  Rope rope{};
};

/// A device that caches are made on.
class CacheDevice {
 public:
  virtual ~CacheDevice() = default;
  /// Throws Error for settings that the policy or the device refuses.
  virtual std::unique_ptr<DeviceCache> make(const DevicePolicy& policy,
                                            const DeviceCacheSetup& setup) = 0;
};

}  // namespace kvast::quality
