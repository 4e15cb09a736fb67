// SPDX-License-Identifier: Apache-2.0
// Byte-level byte-pair encoding as a GGUF file defines it: text to token ids and back.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "examples/decoder/gguf.h"
#include "examples/decoder/pretokenizer.h"
#include "kvast/core/policy.h"

namespace kvast::decoder {

/// What becomes of text that spells a control token, such as <|im_start|>.
enum class Specials {
  text,  ///< it is text like any other: for what a user or a document says
  parse  ///< it is that token: for templates
};

/// Ref: BPE, arXiv:1508.07909; bytes as letters, as GPT-2 has it. Copies what it needs of the file.
class Tokenizer {
 public:
  /// Takes the model `gpt2` with the pre-tokenizers `smollm` and `gpt-2`. Throws FileError.
  explicit Tokenizer(const Gguf& file);

  /// Adds no token for the beginning of text (see begins()). Bytes that the vocabulary cannot
  /// express are left out.
  std::vector<int> encode(std::string_view text, Specials specials = Specials::text) const;

  /// The bytes of the tokens; control tokens as they are spelt. Throws std::out_of_range for a
  /// foreign id.
  std::string decode(std::span<const int> tokens) const;
  const std::string& decode(int token) const;

  int size() const { return static_cast<int>(texts_.size()); }
  TokenKind kind(int token) const;
  std::vector<TokenKind> kinds(std::span<const int> tokens) const;

  /// Whether a text ends with this token (end of text, or of a chat's turn).
  bool is_end(int token) const;
  /// The token that the file wants before a text, or -1.
  int begins() const { return begins_; }
  /// The id of a token by its spelling, or -1.
  int find(std::string_view text) const;

 private:
  struct Merge {
    int rank;
    int token;
  };

  void read_vocabulary(const Gguf& file);
  void read_merges(const Gguf& file);
  void read_ends(const Gguf& file);
  void encode_text(std::string_view text, std::vector<int>& tokens) const;
  void encode_word(std::string_view word, std::vector<int>& tokens) const;
  const Merge* find_merge(int left, int right) const;
  void check(int token) const;

  Pretokenizer rule_ = Pretokenizer::gpt2;
  std::vector<std::string> texts_;  // by id, as bytes
  std::vector<TokenKind> kinds_;
  std::array<int, 256> bytes_{};                     // byte to id, or -1
  std::unordered_map<std::uint64_t, Merge> merges_;  // by the ids of both sides
  std::vector<int> control_, defined_;  // ids that are recognised in text, longest first
  std::vector<int> ends_;
  int begins_ = -1;
};

}  // namespace kvast::decoder
