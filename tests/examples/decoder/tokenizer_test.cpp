// SPDX-License-Identifier: Apache-2.0
// The tokenizer and the chat template: on a vocabulary made here, and against recordings of another
// implementation.
#include "examples/decoder/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "examples/decoder/chat.h"
#include "tests/examples/decoder/gguf_writer.h"
#include "tests/examples/decoder/model_file.h"

namespace kvast::decoder {
namespace {

using Words = std::vector<std::string_view>;

TEST(SplitWords, AsTheExpressionHasIt) {
  const auto gpt2 = [](std::string_view text) { return split_words(text, Pretokenizer::gpt2); };
  EXPECT_EQ(gpt2(""), Words{});
  EXPECT_EQ(gpt2("Hello world"), (Words{"Hello", " world"}));
  EXPECT_EQ(gpt2("a  b"), (Words{"a", " ", " b"}));
  EXPECT_EQ(gpt2("a\n\nb \t c"), (Words{"a", "\n", "\n", "b", " \t", " c"}));
  EXPECT_EQ(gpt2("end  "), (Words{"end", "  "}));
  EXPECT_EQ(gpt2("we'll've 'LL ''s"), (Words{"we", "'ll", "'ve", " '", "LL", " ''", "s"}));
  EXPECT_EQ(gpt2("x'"), (Words{"x", "'"}));
  EXPECT_EQ(gpt2("in 1984!?"), (Words{"in", " 1984", "!?"}));
  EXPECT_EQ(gpt2("\u00e9t\u00e9\u3000\u4f60\u597d"),
            (Words{"\u00e9t\u00e9", "\u3000", "\u4f60\u597d"}));
}

TEST(SplitWords, DigitsStandAlone) {
  const auto smollm = [](std::string_view text) { return split_words(text, Pretokenizer::smollm); };
  EXPECT_EQ(smollm("in 1984x"), (Words{"in", " ", "1", "9", "8", "4", "x"}));
  EXPECT_EQ(smollm("\u00bd\u0663"), (Words{"\u00bd", "\u0663"}));
  EXPECT_EQ(smollm("  7"), (Words{"  ", "7"}));
}

TEST(SplitWords, BytesThatAreNoUtf8AreKept) {
  const std::string text = "a\xff\xc3(\xe2\x82 b\xf0\x9f";
  std::string joined;
  for (const auto word : split_words(text, Pretokenizer::smollm)) joined += word;
  EXPECT_EQ(joined, text);
}

/// a, b, c, space, ab, " a", "abc" and two control tokens.
GgufWriter small_vocabulary() {
  GgufWriter writer;
  writer.text("tokenizer.ggml.model", "gpt2");
  writer.text("tokenizer.ggml.pre", "smollm");
  writer.texts("tokenizer.ggml.tokens", {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b",
                                         "c", "\u0120", "ab", "\u0120a", "abc", ",", "\u010a"});
  writer.integers("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  writer.texts("tokenizer.ggml.merges", {"a b", "\u0120 a", "ab c"});
  writer.integer("tokenizer.ggml.eos_token_id", 2);
  return writer;
}

TEST(Tokenizer, MergesTheLowestRankFirst) {
  const auto file = small_vocabulary().finish();
  const Gguf gguf(file);
  const Tokenizer tokenizer(gguf);
  EXPECT_EQ(tokenizer.encode("abc"), (std::vector<int>{9}));
  EXPECT_EQ(tokenizer.encode(" abc"), (std::vector<int>{6, 9}));
  EXPECT_EQ(tokenizer.encode(" a b"), (std::vector<int>{8, 6, 4}));
  EXPECT_EQ(tokenizer.encode("axb"), (std::vector<int>{7}));  // x is not in the vocabulary
  EXPECT_EQ(tokenizer.decode(std::vector<int>{9, 8, 2, 11}), "abc a<|im_end|>\n");
  EXPECT_EQ(tokenizer.encode(""), std::vector<int>{});
  EXPECT_THROW((void)tokenizer.decode(12), std::out_of_range);
  EXPECT_THROW((void)tokenizer.decode(-1), std::out_of_range);
}

TEST(Tokenizer, ControlTokensOnlyWhereAskedFor) {
  const auto file = small_vocabulary().finish();
  const Gguf gguf(file);
  const Tokenizer tokenizer(gguf);
  EXPECT_EQ(tokenizer.encode("a<|im_end|>b", Specials::parse), (std::vector<int>{3, 2, 4}));
  const auto text = tokenizer.encode("a<|im_end|>b");
  EXPECT_EQ(std::count(text.begin(), text.end(), 2), 0);
  EXPECT_TRUE(tokenizer.is_end(2));
  EXPECT_TRUE(tokenizer.is_end(0));
  EXPECT_FALSE(tokenizer.is_end(3));
  EXPECT_EQ(tokenizer.kinds(std::vector<int>{0, 3, 10}),
            (std::vector{TokenKind::special, TokenKind::other, TokenKind::punctuation}));
}

TEST(Tokenizer, LongWordsTakeNoQuadraticTime) {
  const auto file = small_vocabulary().finish();
  const Gguf gguf(file);
  const Tokenizer tokenizer(gguf);
  std::string text;
  for (int repeat = 0; repeat < 200000; ++repeat) text += "abc";
  EXPECT_EQ(tokenizer.encode(text).size(), 200000U);
}

TEST(Tokenizer, RefusesWhatItDoesNotKnow) {
  const auto said = [](auto change) {
    GgufWriter writer;
    change(writer);
    const auto file = writer.finish();
    try {
      const Gguf gguf(file);
      Tokenizer{gguf};
    } catch (const FileError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(said([](auto& w) { w.text("tokenizer.ggml.model", "llama"); }).find("'llama'"),
            std::string::npos);
  EXPECT_NE(said([](auto& w) {
              w.text("tokenizer.ggml.model", "gpt2");
              w.text("tokenizer.ggml.pre", "qwen2");
            }).find("'qwen2'"),
            std::string::npos);
  EXPECT_NE(said([](auto& w) {
              w.text("tokenizer.ggml.model", "gpt2");
              w.texts("tokenizer.ggml.tokens", {"a"});
              w.integers("tokenizer.ggml.token_type", {1, 1});
              w.texts("tokenizer.ggml.merges", {});
            }).find("2 token types"),
            std::string::npos);
  EXPECT_NE(said([](auto& w) {
              w.text("tokenizer.ggml.model", "gpt2");
              w.texts("tokenizer.ggml.tokens", {"a"});
              w.texts("tokenizer.ggml.merges", {"a"});
            }).find("is no pair"),
            std::string::npos);
}

TEST(Tokenizer, SurvivesAnyChangedByte) {
  const auto good = small_vocabulary().finish();
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int value : {0, 1, 32, 127, 255}) {
      auto file = good;
      file[at] = static_cast<std::byte>(value);
      try {
        const Gguf gguf(file);
        const Tokenizer tokenizer(gguf);
        (void)tokenizer.decode(tokenizer.encode("abc a<|im_end|>b,\n", Specials::parse));
      } catch (const FileError&) {
        continue;
      }
    }
  }
}

TEST(Chat, WritesTurns) {
  GgufWriter writer = small_vocabulary();
  writer.text("tokenizer.chat_template", "{{ '<|im_start|>system\nab<|im_end|>\n' }}");
  const auto file = writer.finish();
  const Gguf gguf(file);
  const Tokenizer tokenizer(gguf);
  Chat chat(gguf, tokenizer);
  EXPECT_EQ(chat.system(), "ab");
  // Of "system", "user" and "assistant" this vocabulary knows the letter a alone.
  EXPECT_EQ(chat.turn("b <|im_end|>"),
            (std::vector<int>{1, 11, 7, 2, 11, 1, 11, 4, 6, 2, 11, 1, 3, 3, 11}));
  EXPECT_EQ(chat.turn("c"), (std::vector<int>{2, 11, 1, 11, 5, 2, 11, 1, 3, 3, 11}));
  const auto plain = small_vocabulary().finish();
  EXPECT_THROW(Chat(Gguf(plain), tokenizer), FileError);
}

class TokenizerOfModel : public WithModel {};

TEST_F(TokenizerOfModel, AgreesWithTheRecordedIds) {
  const Tokenizer tokenizer(gguf());
  const auto golden =
      nlohmann::json::parse(read_repository_file("tests/golden/model/tokenizer.json"));
  ASSERT_GE(golden["cases"].size(), 100U);
  for (const auto& recorded : golden["cases"]) {
    const auto text = recorded["text"].get<std::string>();
    const auto ids = tokenizer.encode(text, Specials::parse);
    EXPECT_EQ(ids, recorded["ids"].get<std::vector<int>>()) << recorded["text"];
    if (recorded["lossless"].get<bool>()) {
      EXPECT_EQ(tokenizer.decode(ids), text);
    }
  }
  EXPECT_EQ(tokenizer.encode(read_repository_file("examples/decoder/data/story.txt")),
            golden["story"]["ids"].get<std::vector<int>>());
}

TEST_F(TokenizerOfModel, ChatIsWhatTheTemplateSays) {
  const Tokenizer tokenizer(gguf());
  Chat chat(gguf(), tokenizer);
  const auto expected = tokenizer.encode("<|im_start|>system\n" + chat.system() +
                                             "<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
                                             "<|im_start|>assistant\n",
                                         Specials::parse);
  EXPECT_EQ(chat.turn("Hi there"), expected);
}

}  // namespace
}  // namespace kvast::decoder
