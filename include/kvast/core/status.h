// SPDX-License-Identifier: Apache-2.0
// Circumstance: what can happen to a correct program is returned, and the object is as it was
// before.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "kvast/core/error.h"

namespace kvast {

enum class StatusCode {
  ok,
  pool_exhausted,  ///< byte limit reached, or the allocator underneath returned null
  unreadable,      ///< a file cannot be opened, read or written
  damaged,         ///< bytes are not what was written
  mismatch,        ///< it belongs to another model
  device_failed,   ///< the GPU is missing, refused a launch or failed
};

/// Outcome of a call that can fail in a correct program. Test it; `message` says what to do about
/// it.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  explicit operator bool() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  /// Becomes what `next()` returns, which is not called after a failure. (nvcc takes an assignment
  /// for a Status that is ignored.)
  template <class Next>
  void then(Next&& next) {
    if (code_ != StatusCode::ok) return;
    Status other = next();
    code_ = other.code_;
    message_ = std::move(other.message_);
  }

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
};

/// A value, or the Status that says why there is none.
template <class Value>
class [[nodiscard]] Result {
 public:
  Result(Value value) : value_(std::move(value)) {}  // implicit: `return value;`
  Result(Status status) : status_(std::move(status)) {
    require(!status_, Caller::here(), "Result: a Status of ok carries no value");
  }

  explicit operator bool() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  /// The value; Error where there is none.
  Value& operator*() { return checked(); }
  Value* operator->() { return &checked(); }

 private:
  Value& checked() {
    require(value_.has_value(), Caller::here(),
            "Result: value asked of a failed call: ", status_.message());
    return *value_;
  }

  std::optional<Value> value_;
  Status status_;
};

}  // namespace kvast
