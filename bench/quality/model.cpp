// SPDX-License-Identifier: Apache-2.0
#include "bench/quality/model.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "examples/decoder/calibrate.h"
#include "kvast/host/openmp.h"

namespace kvast::quality {

Model::Model(const std::string& file, int threads, const std::string& device)
    : executor_(openmp(threads)), file_(file), gguf_(file_.bytes()) {
  tokenizer_ = std::make_unique<decoder::Tokenizer>(gguf_);
  llama_ = open_model(gguf_, executor_, device);
  if (tokenizer_->size() > llama_->config().vocabulary)
    throw UsageError("the tokenizer has " + std::to_string(tokenizer_->size()) +
                     " tokens, the model only " + std::to_string(llama_->config().vocabulary));
}

std::unique_ptr<AnyCache> Model::cache(const std::string& policy, const std::string& storage,
                                       int prompt, int decoded) {
  return make_cache(policy, storage,
                    {.shape = llama_->config().shape(),
                     .prompt_tokens = prompt,
                     .decoded_tokens = decoded,
                     .rope = llama_->config().rope,
                     .executor = executor_,
                     .pool = &pool_,
                     .device = llama_->device(),
                     .weights = [this] {
                       if (weights_ == nullptr)
                         weights_ = std::make_shared<const WeightCalibration>(
                             decoder::calibrate_weights(decoder::Llama(gguf_)));
                       return weights_;
                     }});
}

double Model::full_f16_bytes(int tokens) const {
  const decoder::LlamaConfig& config = llama_->config();
  return 4.0 * config.heads * config.head_dim * config.layers * tokens;
}

namespace {

void check(const Status& status) {
  if (!status) throw std::runtime_error(status.message());
}

}  // namespace

void feed_prompt(Model& model, AnyCache& cache, std::span<const int> tokens, int chunk) {
  const std::size_t most = chunk > 0 ? static_cast<std::size_t>(chunk) : tokens.size();
  for (std::size_t first = 0; first < tokens.size(); first += most) {
    const std::size_t count = std::min(most, tokens.size() - first);
    const bool last = first + count == tokens.size();
    PassOptions pass;
    pass.last_of_prompt = last;
    pass.more_of_prompt = !last;
    const auto kinds = model.tokenizer().kinds(tokens.subspan(first, count));
    pass.kinds = kinds;
    check(model.llama().forward(cache, tokens.subspan(first, count), cache.length(), pass));
  }
}

void feed_token(Model& model, AnyCache& cache, int token) {
  const TokenKind kind = model.tokenizer().kind(token);
  PassOptions pass;
  pass.kinds = {&kind, 1};
  check(model.llama().forward(cache, {&token, 1}, cache.length(), pass));
}

std::string read_text(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw UsageError("cannot read '" + file + "'");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::string generate(Model& model, AnyCache& cache, int most) {
  std::vector<int> tokens;
  while (static_cast<int>(tokens.size()) < most) {
    const int token = model.llama().best();
    if (model.tokenizer().is_end(token)) break;
    tokens.push_back(token);
    if (static_cast<int>(tokens.size()) < most) feed_token(model, cache, token);
  }
  return model.tokenizer().decode(tokens);
}

}  // namespace kvast::quality
