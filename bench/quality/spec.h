// SPDX-License-Identifier: Apache-2.0
// SPEC: name[:key=value[,key=value]...], how policies and storages are named on a command line.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvast/core/policy.h"

namespace kvast::quality {

/// A SPEC that cannot be read; the message lists what would be valid.
class SpecError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One SPEC, taken apart. Its reader asks for each key it knows, with the default; `finish` then
/// refuses every key that nobody asked for. The same questions, asked of an empty Spec, describe
/// the keys for --list.
class Spec {
 public:
  /// Values with any of , : + " are quoted with ".
  static Spec parse(std::string_view text);
  /// Parts of a storage that composes bases before a format: basis+format.
  static std::vector<std::string> split(std::string_view text, char separator);

  const std::string& name() const { return name_; }
  bool has(const std::string& key) const;
  /// Whether its reader knows the key.
  bool asked(const std::string& key) const;

  int number(const std::string& key, int fallback);
  /// A count, or with a decimal point a fraction of the prompt: floor(fraction * prompt + 1e-6).
  int tokens(const std::string& key, int fallback, int prompt);
  double real(const std::string& key, double fallback);
  /// Keys that may be left out; -1 where they are.
  int optional_number(const std::string& key);
  double optional_real(const std::string& key);
  /// Any text, for instance a file's name.
  std::string text(const std::string& key, const std::string& fallback);
  bool flag(const std::string& key, bool fallback);
  /// Index into `choices`.
  int choice(const std::string& key, const std::vector<std::string>& choices, int fallback);
  /// Whole numbers separated by /, or none.
  std::vector<int> list(const std::string& key, const std::vector<int>& fallback);
  /// step, prompt or full/M.
  When when(When fallback);
  /// A key that only changes the meaning of others; -1 where it is absent.
  int optional_tokens(const std::string& key, int prompt);

  /// As if the key had been given.
  void give(const std::string& key, const std::string& value);

  /// Throws SpecError where a key was given that was not asked for.
  void finish() const;
  /// "key=default ..." of everything that was asked for.
  std::string keys() const;

 private:
  const std::string* value(const std::string& key, std::string fallback);
  [[noreturn]] void refuse(const std::string& key, const std::string& text,
                           const std::string& wanted) const;
  int whole(const std::string& key, const std::string& text) const;

  std::string name_;
  std::vector<std::pair<std::string, std::string>> given_;
  std::vector<std::pair<std::string, std::string>> asked_;  // with defaults
};

}  // namespace kvast::quality
