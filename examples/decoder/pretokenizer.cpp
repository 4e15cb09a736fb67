// SPDX-License-Identifier: Apache-2.0
// The regular expression of GPT-2, written out:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#include "examples/decoder/pretokenizer.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace kvast::decoder {
namespace {

enum class Kind : std::uint8_t { letter, number, space, other };

struct Letter {
  UChar32 code;       // negative where the byte is no UTF-8
  std::size_t begin;  // offset in the text
  Kind kind;
};

Kind kind_of(UChar32 code) {
  if (code < 0) return Kind::other;
  const std::uint32_t mask = U_GET_GC_MASK(code);
  if ((mask & U_GC_L_MASK) != 0) return Kind::letter;
  if ((mask & U_GC_N_MASK) != 0) return Kind::number;
  return u_isUWhiteSpace(code) ? Kind::space : Kind::other;
}

/// The next code point at `offset`, which moves on; a byte that begins none is one by itself.
UChar32 next_code(std::string_view text, std::size_t& offset) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
  constexpr std::size_t kLongest = 4;
  const std::size_t rest = text.size() - offset;
  const auto window = static_cast<std::int32_t>(rest < kLongest ? rest : kLongest);
  std::int32_t used = 0;
  UChar32 code = 0;
  U8_NEXT(bytes + offset, used, window, code);
  offset += code < 0 ? 1 : static_cast<std::size_t>(used);
  return code;
}

class Splitter {
 public:
  explicit Splitter(std::string_view text) : text_(text) {
    letters_.reserve(text.size() + 1);
    for (std::size_t offset = 0; offset < text.size();) {
      const std::size_t begin = offset;
      const UChar32 code = next_code(text, offset);
      letters_.push_back({code, begin, kind_of(code)});
    }
  }

  std::vector<std::string_view> split(Pretokenizer rule) {
    std::size_t begin = 0;
    for (std::size_t at = 0; at < letters_.size(); ++at) {
      if (rule != Pretokenizer::smollm || letters_[at].kind != Kind::number) continue;
      split_piece(begin, at);
      emit(at, at + 1);
      begin = at + 1;
    }
    split_piece(begin, letters_.size());
    return std::move(words_);
  }

 private:
  void split_piece(std::size_t begin, std::size_t end) {
    while (begin < end) {
      const std::size_t next = begin + match(begin, end);
      emit(begin, next);
      begin = next;
    }
  }

  /// Length of the first alternative that matches at `begin`; at least 1.
  std::size_t match(std::size_t begin, std::size_t end) const {
    if (const std::size_t length = contraction(begin, end)) return length;
    const bool spaced = letters_[begin].code == ' ' && begin + 1 < end;
    const std::size_t first = spaced ? begin + 1 : begin;
    if (letters_[first].kind != Kind::space) return run(first, end) - begin;
    const std::size_t after = run(begin, end);
    // White space gives its last character to what follows it.
    return after < end && after - begin > 1 ? after - begin - 1 : after - begin;
  }

  std::size_t run(std::size_t begin, std::size_t end) const {
    const Kind kind = letters_[begin].kind;
    while (begin < end && letters_[begin].kind == kind) ++begin;
    return begin;
  }

  std::size_t contraction(std::size_t begin, std::size_t end) const {
    if (letters_[begin].code != '\'') return 0;
    const auto code = [&](std::size_t at) { return at < end ? letters_[at].code : 0; };
    const UChar32 first = code(begin + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    const UChar32 second = code(begin + 2);
    if ((first == 'r' || first == 'v') && second == 'e') return 3;
    return first == 'l' && second == 'l' ? 3 : 0;
  }

  void emit(std::size_t begin, std::size_t end) {
    const std::size_t last = end < letters_.size() ? letters_[end].begin : text_.size();
    words_.push_back(text_.substr(letters_[begin].begin, last - letters_[begin].begin));
  }

  std::string_view text_;
  std::vector<Letter> letters_;
  std::vector<std::string_view> words_;
};

}  // namespace

std::vector<std::string_view> split_words(std::string_view text, Pretokenizer rule) {
  return Splitter(text).split(rule);
}

bool is_punctuation(std::string_view text) {
  const std::size_t first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) return false;
  text = text.substr(first, text.find_last_not_of(' ') - first + 1);
  for (std::size_t offset = 0; offset < text.size();) {
    const UChar32 code = next_code(text, offset);
    if (code < 0 || !u_ispunct(code)) return false;
  }
  return true;
}

}  // namespace kvast::decoder
