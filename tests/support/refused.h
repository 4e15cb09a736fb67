// SPDX-License-Identifier: Apache-2.0
// Expects that a call is refused with a sentence that says what was wrong.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kvast/core/error.h"

namespace kvast::test {

/// `call()` throws Error, and its message contains every one of `parts`.
template <class Call>
void expect_refused(Call&& call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "was not refused; expected: " << parts.front();
  } catch (const Error& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "'" << part << "' is missing in: " << error.what();
  }
}

}  // namespace kvast::test
