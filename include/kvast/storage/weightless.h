// SPDX-License-Identifier: Apache-2.0
// Weightless<S>: an engine says that its attention gives no weights.
#pragma once

#include "kvast/storage/storage.h"

namespace kvast {

/// Another storage, for engines whose own attention kernel tells nobody what its queries attended
/// to. A policy that must know stops compilation; without this its first commit would be refused,
/// as nobody had called attend or observe.
template <class Inner>
struct Weightless : Inner {
  static constexpr bool gives_weights = false;
};

namespace detail {

/// Whether policies may be shown attention where this storage is used.
template <class StorageType>
constexpr bool gives_weights() {
  if constexpr (requires { StorageType::gives_weights; }) return StorageType::gives_weights;
  return true;
}

/// Whether a policy can be had with a storage, as far as weights go.
template <class Policy, class StorageType>
constexpr bool has_its_weights() {
  return gives_weights<StorageType>() || !(Policy::needs.attention || Policy::needs.query_moments);
}

}  // namespace detail
}  // namespace kvast
