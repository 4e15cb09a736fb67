// SPDX-License-Identifier: Apache-2.0
// Misuse: one exception type that carries the caller's line, and a handler where exceptions are
// off.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

namespace kvast {

/// A programming mistake: wrong shapes, impossible settings, calls out of order. Thrown before
/// anything changed.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, std::size_t sentence = std::string::npos)
      : std::runtime_error(message), sentence_(std::min(sentence, message.size())) {}
  /// what() without the caller's file and line: for programs whose users have no source at hand.
  std::string sentence() const { return std::string(what(), sentence_); }

 private:
  std::size_t sentence_;
};

/// Where a public function was called from; every public entry takes one as its last, defaulted
/// argument.
struct Caller {
  const char* file = "";
  int line = 0;

  /// (std::source_location is not available to clang 14 with libstdc++ 12.)
  static constexpr Caller here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// Called with the message where exceptions are off (-fno-exceptions). It must not return; if it
/// does, abort() follows.
using ErrorHandler = void (*)(const char* message);

namespace detail {

inline std::atomic<ErrorHandler>& error_handler() {
  static std::atomic<ErrorHandler> handler{nullptr};
  return handler;
}

inline void append_text(std::string& text, std::string_view part) { text += part; }
inline void append_text(std::string& text, std::integral auto number) {
  text += std::to_string(number);
}
inline void append_text(std::string& text, std::floating_point auto number) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(number));
  text += buffer;
}

template <class... Parts>
std::string join_text(const Parts&... parts) {
  std::string text;
  (append_text(text, parts), ...);
  return text;
}

}  // namespace detail

/// Replaces the handler for builds without exceptions; returns the one before. nullptr: print to
/// stderr and abort.
inline ErrorHandler set_error_handler(ErrorHandler handler) {
  return detail::error_handler().exchange(handler);
}

/// Reports misuse: throws Error (or calls the handler) with `parts` joined and the caller's file
/// and line.
template <class... Parts>
[[noreturn]] void fail(Caller caller, const Parts&... parts) {
  std::string message = detail::join_text(parts...);
  [[maybe_unused]] const std::size_t sentence = message.size();
  message += detail::join_text(" [", std::string_view(caller.file), ":", caller.line, "]");
#if defined(__cpp_exceptions)
  throw Error(message, sentence);
#else
  if (ErrorHandler handler = detail::error_handler().load()) handler(message.c_str());
  std::fprintf(stderr, "kvast: %s\n", message.c_str());
  std::abort();
#endif
}

/// `fail` unless `ok`; the message is only built on failure.
template <class... Parts>
void require(bool ok, Caller caller, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(caller, parts...);
}

}  // namespace kvast
