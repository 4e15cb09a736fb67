// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a file, and the merging of bytes into its tokens.
#include "examples/decoder/tokenizer.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <stdexcept>
#include <tuple>

namespace kvast::decoder {
namespace {

constexpr int kControl = 3;  // token types of the format
constexpr int kDefined = 4;

/// The code point that stands for a byte in the vocabulary: itself where it is a visible Latin-1
/// character, else the next of those from 256 on.
std::array<int, 256> byte_letters() {
  std::array<int, 256> letters{};
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    letters[static_cast<std::size_t>(byte)] = visible ? byte : next++;
  }
  return letters;
}

/// The bytes that a vocabulary entry stands for. What is not written in the byte alphabet is left
/// as it is spelt.
std::string to_bytes(std::string_view entry) {
  static const auto bytes = [] {
    std::array<int, 512> table{};
    table.fill(-1);
    const auto letters = byte_letters();
    for (int byte = 0; byte < 256; ++byte) {
      table[static_cast<std::size_t>(letters[static_cast<std::size_t>(byte)])] = byte;
    }
    return table;
  }();
  std::string out;
  for (std::size_t at = 0; at < entry.size();) {
    const auto lead = static_cast<unsigned char>(entry[at]);
    unsigned code = lead;
    std::size_t length = 1;
    if (lead >= 0xC2 && lead <= 0xC7 && at + 1 < entry.size()) {  // code points below 512
      code = ((lead & 0x1FU) << 6U) | (static_cast<unsigned char>(entry[at + 1]) & 0x3FU);
      length = 2;
    }
    const bool alphabet = (lead < 0x80 || length == 2) && bytes[code] >= 0;
    if (!alphabet) return std::string(entry);
    out += static_cast<char>(bytes[code]);
    at += length;
  }
  return out;
}

std::string to_letter(int code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

std::uint64_t pair_key(int left, int right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) |
         static_cast<std::uint32_t>(right);
}

}  // namespace

Tokenizer::Tokenizer(const Gguf& file) {
  const auto model = file.text("tokenizer.ggml.model");
  if (model != "gpt2") {
    throw FileError("the file's tokenizer is '" + std::string(model) +
                    "'; this decoder reads 'gpt2' (byte-level BPE) only");
  }
  const auto rule = file.text("tokenizer.ggml.pre", "gpt-2");
  if (rule != "smollm" && rule != "gpt-2") {
    throw FileError("the file's pre-tokenizer is '" + std::string(rule) +
                    "'; this decoder knows 'smollm' and 'gpt-2'");
  }
  rule_ = rule == "smollm" ? Pretokenizer::smollm : Pretokenizer::gpt2;
  read_vocabulary(file);
  read_merges(file);
  read_ends(file);
}

void Tokenizer::read_vocabulary(const Gguf& file) {
  const auto entries = file.texts("tokenizer.ggml.tokens");
  const auto types = file.has("tokenizer.ggml.token_type")
                         ? file.integers("tokenizer.ggml.token_type")
                         : std::vector<int>(entries.size(), 1);
  if (entries.empty() ||
      entries.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw FileError("the file's vocabulary has " + std::to_string(entries.size()) + " tokens");
  }
  if (types.size() != entries.size()) {
    throw FileError("the file has " + std::to_string(entries.size()) + " tokens but " +
                    std::to_string(types.size()) + " token types");
  }
  for (std::size_t token = 0; token < entries.size(); ++token) {
    const bool special = types[token] == kControl || types[token] == kDefined;
    texts_.push_back(special ? std::string(entries[token]) : to_bytes(entries[token]));
    kinds_.push_back(types[token] == kControl        ? TokenKind::special
                     : is_punctuation(texts_.back()) ? TokenKind::punctuation
                                                     : TokenKind::other);
    if (!special || texts_.back().empty()) continue;
    (types[token] == kControl ? control_ : defined_).push_back(static_cast<int>(token));
  }
  const auto longest_first = [this](int left, int right) {
    return texts_[static_cast<std::size_t>(left)].size() >
           texts_[static_cast<std::size_t>(right)].size();
  };
  std::stable_sort(control_.begin(), control_.end(), longest_first);
  std::stable_sort(defined_.begin(), defined_.end(), longest_first);
}

void Tokenizer::read_merges(const Gguf& file) {
  std::unordered_map<std::string_view, int> ids;  // by spelling in the file
  const auto entries = file.texts("tokenizer.ggml.tokens");
  ids.reserve(entries.size());
  for (std::size_t token = 0; token < entries.size(); ++token) {
    ids.emplace(entries[token], static_cast<int>(token));
  }
  const auto id = [&ids](std::string_view entry) {
    const auto found = ids.find(entry);
    return found == ids.end() ? -1 : found->second;
  };
  const auto letters = byte_letters();
  for (std::size_t byte = 0; byte < 256; ++byte) bytes_[byte] = id(to_letter(letters[byte]));

  const auto merges = file.texts("tokenizer.ggml.merges");
  merges_.reserve(merges.size());
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::size_t space = merges[rank].find(' ');
    if (space == 0 || space == std::string_view::npos || space + 1 == merges[rank].size()) {
      throw FileError("merge " + std::to_string(rank) + " of the file's tokenizer is no pair");
    }
    const auto left = merges[rank].substr(0, space);
    const auto right = merges[rank].substr(space + 1);
    joined.assign(left).append(right);
    const int ids_of[] = {id(left), id(right), id(joined)};
    if (std::min({ids_of[0], ids_of[1], ids_of[2]}) < 0) continue;  // can never apply
    merges_.emplace(pair_key(ids_of[0], ids_of[1]), Merge{static_cast<int>(rank), ids_of[2]});
  }
}

void Tokenizer::read_ends(const Gguf& file) {
  const int last = size() - 1;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    if (file.has(key)) ends_.push_back(file.integer(key, 0, last));
  }
  for (const int token : control_) {
    const std::string& text = texts_[static_cast<std::size_t>(token)];
    if (text == "<|endoftext|>" || text == "<|im_end|>") ends_.push_back(token);
  }
  if (file.boolean("tokenizer.ggml.add_bos_token", false)) {
    begins_ = file.integer("tokenizer.ggml.bos_token_id", 0, last);
  }
}

std::vector<int> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<int> tokens;
  const auto at = [&](std::size_t offset) {
    const auto spells = [&](int token) {
      return text.substr(offset).starts_with(texts_[static_cast<std::size_t>(token)]);
    };
    if (specials == Specials::parse) {
      const auto found = std::find_if(control_.begin(), control_.end(), spells);
      if (found != control_.end()) return *found;
    }
    const auto found = std::find_if(defined_.begin(), defined_.end(), spells);
    return found == defined_.end() ? -1 : *found;
  };
  std::size_t begin = 0;
  for (std::size_t offset = 0; offset < text.size();) {
    const int token = at(offset);
    if (token < 0) {
      ++offset;
      continue;
    }
    encode_text(text.substr(begin, offset - begin), tokens);
    tokens.push_back(token);
    offset += texts_[static_cast<std::size_t>(token)].size();
    begin = offset;
  }
  encode_text(text.substr(begin), tokens);
  return tokens;
}

void Tokenizer::encode_text(std::string_view text, std::vector<int>& tokens) const {
  for (const auto word : split_words(text, rule_)) encode_word(word, tokens);
}

const Tokenizer::Merge* Tokenizer::find_merge(int left, int right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Tokenizer::encode_word(std::string_view word, std::vector<int>& tokens) const {
  struct Symbol {
    int token;  // -1 once it was merged into the one before
    int previous, next;
  };
  std::vector<Symbol> symbols;
  for (const char letter : word) {
    const int token = bytes_[static_cast<unsigned char>(letter)];
    const int index = static_cast<int>(symbols.size());
    if (token >= 0) symbols.push_back({token, index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  // Lowest rank first, and the leftmost of equals. Entries go stale when a neighbour is merged;
  // they are recognised by their tokens. So a word of n bytes takes n log n.
  using Candidate = std::tuple<int, int, int, int>;  // rank, index, left token, right token
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto symbol = [&](int index) -> Symbol& {
    return symbols[static_cast<std::size_t>(index)];
  };
  const auto consider = [&](int index) {
    if (index < 0 || symbol(index).next < 0) return;
    const int left = symbol(index).token;
    const int right = symbol(symbol(index).next).token;
    if (const Merge* merge = find_merge(left, right)) {
      candidates.emplace(merge->rank, index, left, right);
    }
  };
  for (int index = 0; index < static_cast<int>(symbols.size()); ++index) consider(index);
  while (!candidates.empty()) {
    const auto [rank, index, left, right] = candidates.top();
    candidates.pop();
    const int next = symbol(index).next;
    if (symbol(index).token != left || next < 0 || symbol(next).token != right) continue;
    symbol(index).token = find_merge(left, right)->token;
    symbol(index).next = symbol(next).next;
    symbol(next).token = -1;
    if (symbol(index).next >= 0) symbol(symbol(index).next).previous = index;
    consider(symbol(index).previous);
    consider(index);
  }
  for (const Symbol& left : symbols) {
    if (left.token >= 0) tokens.push_back(left.token);
  }
}

void Tokenizer::check(int token) const {
  if (token < 0 || token >= size()) {
    throw std::out_of_range("token " + std::to_string(token) + " lies outside the vocabulary of " +
                            std::to_string(size()));
  }
}

const std::string& Tokenizer::decode(int token) const {
  check(token);
  return texts_[static_cast<std::size_t>(token)];
}

std::string Tokenizer::decode(std::span<const int> tokens) const {
  std::string text;
  for (const int token : tokens) text += decode(token);
  return text;
}

TokenKind Tokenizer::kind(int token) const {
  check(token);
  return kinds_[static_cast<std::size_t>(token)];
}

std::vector<TokenKind> Tokenizer::kinds(std::span<const int> tokens) const {
  std::vector<TokenKind> out;
  for (const int token : tokens) out.push_back(kind(token));
  return out;
}

bool Tokenizer::is_end(int token) const {
  return std::find(ends_.begin(), ends_.end(), token) != ends_.end();
}

int Tokenizer::find(std::string_view text) const {
  const auto found = std::find(texts_.begin(), texts_.end(), text);
  return found == texts_.end() ? -1 : static_cast<int>(found - texts_.begin());
}

}  // namespace kvast::decoder
