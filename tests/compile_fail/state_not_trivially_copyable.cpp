// expect: kvast policy: State must be trivially copyable, it moves with its token
// SPDX-License-Identifier: Apache-2.0
#include <kvast/core/check_policy.h>

#include <string>

struct Scribe {
  static constexpr kvast::Needs needs{};
  struct State {
    std::string notes;
  };
  float rank(kvast::Token, const State&) const { return 0.0F; }
};
static_assert(kvast::check_policy<Scribe>());
