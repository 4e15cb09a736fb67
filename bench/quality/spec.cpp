// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

namespace kvast::quality {

std::vector<std::string> Spec::split(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  bool quoted = false;
  for (const char letter : text) {
    if (letter == '"') quoted = !quoted;
    if (letter == separator && !quoted) {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  if (quoted) throw SpecError("SPEC '" + std::string(text) + "': a quote is not closed");
  return parts;
}

Spec Spec::parse(std::string_view text) {
  Spec spec;
  const std::vector<std::string> halves = split(text, ':');
  spec.name_ = halves[0];
  if (halves.size() > 2)
    throw SpecError("SPEC '" + std::string(text) +
                    "': more than one ':'; quote values that hold one");
  if (halves.size() < 2) return spec;
  for (const std::string& item : split(halves[1], ',')) {
    const std::size_t equals = item.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw SpecError("SPEC '" + std::string(text) + "': '" + item + "' is not key=value");
    }
    std::string value = item.substr(equals + 1);
    std::erase(value, '"');
    if (spec.has(item.substr(0, equals)))
      throw SpecError("SPEC '" + std::string(text) + "': '" + item.substr(0, equals) +
                      "' is given twice");
    spec.given_.emplace_back(item.substr(0, equals), value);
  }
  return spec;
}

bool Spec::has(const std::string& key) const {
  return std::any_of(given_.begin(), given_.end(),
                     [&](const auto& item) { return item.first == key; });
}

bool Spec::asked(const std::string& key) const {
  return std::any_of(asked_.begin(), asked_.end(),
                     [&](const auto& item) { return item.first == key; });
}

const std::string* Spec::value(const std::string& key, std::string fallback) {
  asked_.emplace_back(key, std::move(fallback));
  for (const auto& item : given_) {
    if (item.first == key) return &item.second;
  }
  return nullptr;
}

void Spec::refuse(const std::string& key, const std::string& text,
                  const std::string& wanted) const {
  throw SpecError("SPEC '" + name_ + "': " + key + " is '" + text + "', must be " + wanted);
}

int Spec::whole(const std::string& key, const std::string& text) const {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) refuse(key, text, "a whole number");
  return number;
}

int Spec::number(const std::string& key, int fallback) {
  const std::string* text = value(key, std::to_string(fallback));
  return text == nullptr ? fallback : whole(key, *text);
}

int Spec::tokens(const std::string& key, int fallback, int prompt) {
  const std::string* text = value(key, std::to_string(fallback));
  if (text == nullptr) return fallback;
  if (text->find('.') == std::string::npos) {
    const int count = whole(key, *text);
    if (count < 0) refuse(key, *text, "a count, at least 0");
    return count;
  }
  double fraction = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), fraction);
  if (error != std::errc() || end != text->data() + text->size() ||
      !(fraction >= 0 && fraction <= 1)) {
    refuse(key, *text, "a count, or a fraction of the prompt in [0.0, 1.0]");
  }
  return static_cast<int>(std::floor(fraction * prompt + 1e-6));
}

int Spec::optional_tokens(const std::string& key, int prompt) {
  const int tokens_given = tokens(key, -1, prompt);
  asked_.back().second = "";
  return tokens_given;
}

int Spec::optional_number(const std::string& key) {
  const int given = number(key, -1);
  asked_.back().second = "";
  return given;
}

double Spec::optional_real(const std::string& key) {
  const double given = real(key, -1);
  asked_.back().second = "";
  return given;
}

double Spec::real(const std::string& key, double fallback) {
  std::ostringstream written;
  written << fallback;
  const std::string* text = value(key, written.str());
  if (text == nullptr) return fallback;
  double number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size() || !std::isfinite(number))
    refuse(key, *text, "a number");
  return number;
}

std::string Spec::text(const std::string& key, const std::string& fallback) {
  const std::string* given = value(key, fallback);
  return given == nullptr ? fallback : *given;
}

bool Spec::flag(const std::string& key, bool fallback) {
  return choice(key, {"no", "yes"}, fallback ? 1 : 0) == 1;
}

int Spec::choice(const std::string& key, const std::vector<std::string>& choices, int fallback) {
  const std::string* text = value(key, choices[static_cast<std::size_t>(fallback)]);
  if (text == nullptr) return fallback;
  const auto found = std::find(choices.begin(), choices.end(), *text);
  if (found == choices.end()) {
    std::string wanted = "one of";
    for (const std::string& one : choices) wanted.append(" ").append(one);
    refuse(key, *text, wanted);
  }
  return static_cast<int>(found - choices.begin());
}

std::vector<int> Spec::list(const std::string& key, const std::vector<int>& fallback) {
  std::string written;
  for (const int number : fallback)
    written.append(written.empty() ? "" : "/").append(std::to_string(number));
  const std::string* text = value(key, written.empty() ? "none" : written);
  if (text == nullptr) return fallback;
  std::vector<int> numbers;
  if (*text == "none") return numbers;
  for (const std::string& part : split(*text, '/')) numbers.push_back(whole(key, part));
  return numbers;
}

When Spec::when(When fallback) {
  std::string written = "step";
  if (fallback.kind == When::Kind::prompt) written = "prompt";
  if (fallback.kind == When::Kind::full) written = "full/" + std::to_string(fallback.batch);
  const std::string* text = value("when", written);
  if (text == nullptr) return fallback;
  if (*text == "step") return When::step();
  if (*text == "prompt") return When::prompt();
  if (text->starts_with("full/")) return When::full(whole("when", text->substr(5)));
  refuse("when", *text, "step, prompt or full/M");
}

void Spec::give(const std::string& key, const std::string& value) {
  given_.emplace_back(key, value);
}

void Spec::finish() const {
  for (const auto& item : given_) {
    const auto known = [&](const auto& other) { return other.first == item.first; };
    if (std::any_of(asked_.begin(), asked_.end(), known)) continue;
    std::string message = "SPEC '" + name_ + "': unknown key '" + item.first + "'; valid are";
    for (const auto& asked : asked_) message.append(" ").append(asked.first);
    throw SpecError(message);
  }
}

std::string Spec::keys() const {
  std::string text;
  for (const auto& asked : asked_)
    text.append(text.empty() ? "" : " ").append(asked.first).append("=").append(asked.second);
  return text;
}

}  // namespace kvast::quality
