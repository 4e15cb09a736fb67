// SPDX-License-Identifier: Apache-2.0
// Cuts text into the words inside which byte pairs are merged.
#pragma once

#include <string_view>
#include <vector>

namespace kvast::decoder {

/// The rules a file can ask for.
enum class Pretokenizer {
  gpt2,   ///< contractions, words, numbers, punctuation and white space, each with the space before
          ///< it
  smollm  ///< every digit is cut out first, the rest as gpt2
};

/// The words of `text`, in order; together they are `text`. Views into `text`. Bytes that are no
/// UTF-8 count as punctuation, one by one.
std::vector<std::string_view> split_words(std::string_view text, Pretokenizer rule);

/// Whether `text` is punctuation (\p{P}) and nothing else, apart from spaces around it.
bool is_punctuation(std::string_view text);

}  // namespace kvast::decoder
