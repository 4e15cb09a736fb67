// SPDX-License-Identifier: Apache-2.0
// A cache whose policy and storage were chosen at run time: what the decoder and the evaluator
// hold.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kvast/calibrate/progressive.h"
#include "kvast/core/pass_options.h"
#include "kvast/core/pool.h"
#include "kvast/core/shape.h"
#include "kvast/core/status.h"

namespace kvast::quality {

/// KVCache behind virtual calls, a few per layer. It owns its open pass: `begin` opens one, the
/// last layer's `commit` ends it. Rows are packed floats, [n, heads, head_dim]. Errors as
/// KVCache's.
class AnyCache {
 public:
  virtual ~AnyCache() = default;

  virtual Status begin(const PassOptions& pass) = 0;
  virtual void append(int layer, const float* keys, const float* values) = 0;
  virtual void attend(int layer, const float* queries, float* output) = 0;
  virtual void commit(int layer) = 0;

  /// A second cache with the same tokens; null where the pool is exhausted.
  virtual std::unique_ptr<AnyCache> fork() = 0;
  /// Whether there is a fork at all.
  virtual bool forks() const { return true; }
  /// Positions::compacted and unrotated: keys and queries must arrive unrotated.
  virtual bool wants_unrotated() const = 0;
  virtual int length() const = 0;
  virtual std::size_t bytes_in_use() const = 0;
  /// Most bytes in use at any time, sampled after every append and commit.
  virtual std::size_t bytes_peak() const = 0;
  /// Live tokens per head, mean over layers and heads.
  virtual double kept_mean() const = 0;
  /// Positions of a head's live tokens, ascending.
  virtual std::vector<int> kept(int layer, int head) const = 0;
  /// Where the policy chooses by head (FastGen): how many heads have which rule; else empty.
  virtual std::string report() const = 0;
};

class CacheDevice;  // on_device.h

/// What a cache needs to know of its model and prompt.
struct CacheSetup {
  Shape shape;
  int prompt_tokens = 0;   ///< fractions in a SPEC are of this
  int decoded_tokens = 0;  ///< that follow it: `bytes` in a policy's SPEC hold at their end
  Rope rope;               ///< used where keys and queries arrive unrotated
  Executor executor{};
  BlockPool* pool = nullptr;
  CacheDevice* device = nullptr;  ///< where the cache lives; null: on the host, in `pool`
  /// Directions of the model's weights, for lorc; empty where they are not at hand.
  std::function<std::shared_ptr<const WeightCalibration>()> weights{};
};

/// A cache for SPECs of policy and storage (see Spec). Throws SpecError naming the valid names or
/// keys, or what does not run on the setup's device, and kvast::Error for settings that a policy or
/// storage refuses.
std::unique_ptr<AnyCache> make_cache(const std::string& policy, const std::string& storage,
                                     const CacheSetup& setup);

/// Every policy and storage name with its keys and defaults, one line each: {kind, name, keys}.
struct Listed {
  std::string kind;
  std::string name;
  std::string keys;
};
std::vector<Listed> list_specs();

}  // namespace kvast::quality
