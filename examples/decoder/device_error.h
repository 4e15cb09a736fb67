// SPDX-License-Identifier: Apache-2.0
// How failures of a device are told.
#pragma once

#include <stdexcept>

namespace kvast::decoder {

/// There is no device, or it has no memory left, or it failed; the message says which.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace kvast::decoder
