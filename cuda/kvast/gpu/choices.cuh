// SPDX-License-Identifier: Apache-2.0
// Where heads' choices stand, for policies that look at each head once (FastGen).
#pragma once

#include "kvast/core/check_policy.h"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// Nothing, for policies that choose nothing.
template <class Policy>
struct HeadChoices {};

/// A choice per head, in device memory. One counts where Turn::chose; before, a default Choice
/// does.
template <kvast::detail::Chooses Policy>
struct HeadChoices<Policy> {
  using Choice = typename Policy::Choice;
  static_assert(std::is_trivially_copyable_v<Choice>, "kvast OnGpu: Choice is copied as bytes");
  std::byte* all = nullptr;
  std::int64_t layer_bytes = 0;

  KVAST_HD Choice& at(const LayerView& layer, int table) const {
    return reinterpret_cast<Choice*>(all + layer.layer * layer_bytes)[table];
  }
};

}  // namespace kvast::gpu
