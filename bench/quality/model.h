// SPDX-License-Identifier: Apache-2.0
// The model under evaluation: file, tokenizer, decoder, and a sequence that runs through a cache.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/quality/any_model.h"
#include "examples/decoder/gguf.h"
#include "examples/decoder/mapped_file.h"
#include "examples/decoder/tokenizer.h"

namespace kvast::quality {

/// What the caller asked for cannot be evaluated (a text too short, say); the program ends with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// One model file, opened once.
class Model {
 public:
  /// `device`: see open_model.
  Model(const std::string& file, int threads, const std::string& device = "cpu");

  AnyModel& llama() { return *llama_; }
  const decoder::Tokenizer& tokenizer() const { return *tokenizer_; }
  BlockPool& pool() { return pool_; }

  std::unique_ptr<AnyCache> cache(const std::string& policy, const std::string& storage, int prompt,
                                  int decoded = 0);
  /// Bytes of a full f16 cache of `tokens` tokens: 2 x 2 bytes x heads x head_dim x layers x
  /// tokens.
  double full_f16_bytes(int tokens) const;

 private:
  Executor executor_;
  decoder::MappedFile file_;
  decoder::Gguf gguf_;
  std::unique_ptr<decoder::Tokenizer> tokenizer_;
  std::unique_ptr<AnyModel> llama_;
  BlockPool pool_;
  std::shared_ptr<const WeightCalibration> weights_;  // made when first asked for
};

/// Feeds a prompt in one pass (chunk 0) or in chunks; logits of the last token are in model.llama()
/// afterwards.
void feed_prompt(Model& model, AnyCache& cache, std::span<const int> tokens, int chunk = 0);

/// Feeds one generated token.
void feed_token(Model& model, AnyCache& cache, int token);

/// The whole file; UsageError where it cannot be read.
std::string read_text(const std::string& file);

/// Up to `most` tokens, each the likeliest; stops at an end-of-text token. The logits of the prompt
/// must be at hand.
std::string generate(Model& model, AnyCache& cache, int most);

}  // namespace kvast::quality
