// SPDX-License-Identifier: Apache-2.0
// ChatML: <|im_start|>role, a line break, the message, <|im_end|>, a line break.
#include "examples/decoder/chat.h"

namespace kvast::decoder {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";

/// The system message spelt out in a template, or nothing: what stands between
/// "<|im_start|>system", a line break (as itself or as \n) and the next end of turn.
std::string default_system(std::string_view format) {
  const std::string opening = std::string(kStart) + "system";
  std::size_t begin = format.find(opening);
  if (begin == std::string_view::npos) return {};
  begin += opening.size();
  const auto rest = format.substr(begin);
  if (!rest.starts_with("\n") && !rest.starts_with("\\n")) return {};
  begin += rest.starts_with("\n") ? 1 : 2;
  const std::size_t end = format.find(kEnd, begin);
  if (end == std::string_view::npos) return {};
  const auto message = format.substr(begin, end - begin);
  return message.find('\'') == std::string_view::npos ? std::string(message) : std::string();
}

}  // namespace

Chat::Chat(const Gguf& file, const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {
  const auto format = file.text("tokenizer.chat_template", "");
  start_ = tokenizer.find(kStart);
  end_ = tokenizer.find(kEnd);
  const bool known = format.find(kStart) != std::string_view::npos && start_ >= 0 && end_ >= 0;
  if (!known) {
    throw FileError("the file has no ChatML template, so it cannot chat here; use a prompt");
  }
  system_ = default_system(format);
}

std::vector<int> Chat::turn(std::string_view message) {
  std::vector<int> tokens;
  const auto line_break = tokenizer_->encode("\n");
  if (begun_) {
    tokens.push_back(end_);
    tokens.insert(tokens.end(), line_break.begin(), line_break.end());
  } else {
    if (tokenizer_->begins() >= 0) tokens.push_back(tokenizer_->begins());
    if (!system_.empty()) say("system", system_, tokens);
  }
  begun_ = true;
  say("user", message, tokens);
  open("assistant\n", tokens);
  return tokens;
}

void Chat::say(std::string_view role, std::string_view message, std::vector<int>& tokens) const {
  // One text: white space at the message's beginning may share a token with the line break.
  open(std::string(role) + "\n" + std::string(message), tokens);
  tokens.push_back(end_);
  const auto line_break = tokenizer_->encode("\n");
  tokens.insert(tokens.end(), line_break.begin(), line_break.end());
}

void Chat::open(std::string_view text, std::vector<int>& tokens) const {
  tokens.push_back(start_);
  const auto said = tokenizer_->encode(text);
  tokens.insert(tokens.end(), said.begin(), said.end());
}

}  // namespace kvast::decoder
