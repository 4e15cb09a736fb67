// SPDX-License-Identifier: Apache-2.0
// The decoder on the device against the one on the CPU, as in tests/simt/decoder: every policy with
// every storage, on a model made from a seed, and some of them on the file that KVAST_MODEL names.
#include <gtest/gtest.h>

#include <cstdlib>

#include "bench/quality/gpu/evaluator_caches.cuh"
#include "examples/decoder/mapped_file.h"
#include "tests/simt/decoder/twin_decoders.h"

namespace kvast {
namespace {

using quality::EvaluatorCaches;
using quality::EvaluatorDevice;
using test::DecoderCell;

const std::vector<std::string> kPolicies{"full",
                                         "streaming:sinks=4,recent=90",
                                         "l2norm:budget=90,recent=8,skip=none",
                                         "random:budget=90,recent=8",
                                         "h2o:heavy=60,recent=30",
                                         "corm:window=40,recent=16,cap=80",
                                         "tova:budget=90",
                                         "scissorhands:budget=90,recent=8,window=60,when=full/16",
                                         "keyformer:budget=90",
                                         "snapkv:budget=80,window=16",
                                         "pyramidkv:budget=80,window=16",
                                         "adakv:budget=80,window=16",
                                         "fastgen:threshold=0.6,frequent=0.2,local=0.2"};
const std::vector<std::string> kStorages{"f32",
                                         "f16",
                                         "bf16",
                                         "kivi:bits=8,residual=32",
                                         "kivi:bits=4,residual=32",
                                         "kivi:bits=2,residual=32",
                                         "kivi:k=8,v=4",
                                         "kivi:k=4,v=2,residual=0",
                                         "int8",
                                         "int4:first=4,layers=1",
                                         "fp8:kind=e4m3",
                                         "rotated+kivi:bits=8",
                                         "rotated+kivi:bits=4,residual=32",
                                         "rotated+kivi:bits=2,residual=32",
                                         "rotated+kivi:k=8,v=4",
                                         "rotated+kivi:k=4,v=2",
                                         "rotated+int8",
                                         "rotated+int4",
                                         "rotated+fp8:kind=e4m3"};

/// Products of the device round queries and weights, and its exponentials are approximate.
DecoderCell cell_of(const std::string& policy, const std::string& storage) {
  if (storage == "f32") return {policy, storage, 1e-4, 0.02};
  if (storage == "f16") return {policy, storage, 2e-3, 0.1};
  return {policy, storage, 1e-2, 0.1};
}

class EveryCell : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(EveryCell, AgreesWithTheCpu) {
  const auto& [policy, storage] = GetParam();
  const decoder::TinyModel tiny(
      decoder::TensorType::f16,
      {.embedding = 128, .feed_forward = 192, .query_heads = 8, .heads = 2, .head_dim = 64});
  const std::vector<std::byte> file = tiny.writer.finish();
  EvaluatorCaches caches(test::stream());
  test::check_decoders<EvaluatorDevice>(decoder::Gguf(file), cell_of(policy, storage), caches, 150,
                                        64, test::stream());
}

std::string name_of(const testing::TestParamInfo<EveryCell::ParamType>& info) {
  std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
  for (char& letter : name) {
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0) letter = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(GpuDecoder, EveryCell,
                         testing::Combine(testing::ValuesIn(kPolicies),
                                          testing::ValuesIn(kStorages)),
                         name_of);

TEST(GpuDecoder, CompactedPositions) {
  const decoder::TinyModel tiny(decoder::TensorType::f16, {.head_dim = 64});
  const std::vector<std::byte> file = tiny.writer.finish();
  for (const std::string storage : {"f32", "f16"}) {
    EvaluatorCaches caches(test::stream());
    test::check_decoders<EvaluatorDevice>(
        decoder::Gguf(file), cell_of("streaming:sinks=4,recent=60,positions=compacted", storage),
        caches, 100, 40, test::stream());
  }
}

TEST(GpuDecoder, RealModel) {
  const char* path = std::getenv("KVAST_MODEL");
  if (path == nullptr || *path == '\0') GTEST_SKIP() << "KVAST_MODEL names no model file";
  const decoder::MappedFile file(path);
  const decoder::Gguf gguf(file.bytes());
  const auto check = [&](const std::string& policy, const std::string& storage) {
    SCOPED_TRACE(policy + ", " + storage);
    EvaluatorCaches caches(test::stream());
    DecoderCell cell = cell_of(policy, storage);
    cell.tolerance = 0.05;  // weights are rounded to f16, and 30 layers hand on what differs
    cell.near_ties = 0.2;
    test::check_decoders<EvaluatorDevice>(gguf, cell, caches, 110, 8, test::stream());
  };
  for (const std::string& policy : kPolicies) check(policy, "f16");
  for (const std::string& storage : kStorages) check("h2o:heavy=60,recent=30", storage);
}

}  // namespace
}  // namespace kvast
