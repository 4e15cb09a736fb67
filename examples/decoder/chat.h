// SPDX-License-Identifier: Apache-2.0
// The chat template of the file's kind (ChatML), so that an instruction model sees what it was
// trained on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "examples/decoder/gguf.h"
#include "examples/decoder/tokenizer.h"

namespace kvast::decoder {

/// Writes the turns of a conversation as tokens. What is said is always text: a user who types
/// <|im_end|> ends nothing.
class Chat {
 public:
  /// Throws FileError where the file's template is not ChatML.
  Chat(const Gguf& file, const Tokenizer& tokenizer);

  /// A user's turn and the opening of the answer. The first turn is preceded by the system's
  /// message, which defaults to the one in the file's template; a later one by the end of the
  /// answer before it.
  std::vector<int> turn(std::string_view message);

  void set_system(std::string_view message) { system_ = message; }
  const std::string& system() const { return system_; }

 private:
  void say(std::string_view role, std::string_view message, std::vector<int>& tokens) const;
  void open(std::string_view text, std::vector<int>& tokens) const;

  const Tokenizer* tokenizer_;
  std::string system_;
  int start_ = -1, end_ = -1;
  bool begun_ = false;
};

}  // namespace kvast::decoder
