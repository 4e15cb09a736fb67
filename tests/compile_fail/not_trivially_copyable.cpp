// expect: kvast policy: must be trivially copyable, so that it can be passed to a kernel
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

#include <vector>

struct Owner {
  std::vector<float> settings;
  static constexpr kvast::Needs needs{};
  struct State {};
  float rank(kvast::Token, State) const { return 0.0F; }
};
static_assert(kvast::check_policy<Owner>());
