// SPDX-License-Identifier: Apache-2.0
// Reads what other implementations recorded: tests/golden/kvpress, kept sets and the tensors they
// were chosen from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "kvast/core/half.h"

namespace kvast::test {

/// [tokens, heads, dim], packed.
struct GoldenTensor {
  int tokens = 0;
  int heads = 0;
  int dim = 0;
  std::vector<float> numbers{};
};

/// One press applied to one layer's tensors.
struct GoldenCase {
  std::string press{};
  nlohmann::json params{};
  std::string source{};
  double ratio_removed = 0.0;
  double rope_base = 0.0;
  int layer = 0;
  int layers = 1;
  std::string queries{};  ///< tensor of the last queries, or empty
  std::string keys{};
  std::string values{};
  std::vector<std::vector<int>> kept{};  ///< [heads] positions, ascending
};

/// A folder with an index.json in the form that tests/golden/kvpress describes. Throws
/// std::runtime_error for files that are not there or not as the index says.
class GoldenFolder {
 public:
  explicit GoldenFolder(const std::string& folder) : folder_(folder) {
    std::ifstream file(folder + "/index.json");
    if (!file) throw std::runtime_error("cannot read " + folder + "/index.json");
    index_ = nlohmann::json::parse(file);
  }

  /// All cases of a press.
  std::vector<GoldenCase> cases(const std::string& press) const {
    std::vector<GoldenCase> found;
    for (const auto& one : index_.at("cases")) {
      if (one.at("press") != press) continue;
      found.push_back({.press = press,
                       .params = one.at("params"),
                       .source = one.value("source", std::string()),
                       .ratio_removed = one.at("ratio_removed"),
                       .rope_base = one.at("rope_base"),
                       .layer = one.at("layer"),
                       .layers = one.at("layers"),
                       .queries = name_of(one, "queries"),
                       .keys = name_of(one, "keys"),
                       .values = name_of(one, "values"),
                       .kept = one.at("kept")});
    }
    return found;
  }
  const GoldenTensor& tensor(const std::string& name) {
    const auto found = tensors_.find(name);
    return found != tensors_.end() ? found->second
                                   : tensors_.emplace(name, read(name)).first->second;
  }

 private:
  static std::string name_of(const nlohmann::json& one, const char* role) {
    const auto found = one.find(role);
    return found == one.end() || found->is_null() ? std::string() : found->get<std::string>();
  }
  GoldenTensor read(const std::string& name) const {
    const auto& entry = index_.at("tensors").at(name);
    const std::vector<int> shape = entry.at("shape");
    const std::string dtype = entry.at("dtype");
    const std::string path = folder_ + "/" + entry.at("file").get<std::string>();
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    const auto size = static_cast<std::size_t>(shape.at(0)) *
                      static_cast<std::size_t>(shape.at(1)) * static_cast<std::size_t>(shape.at(2));
    if (bytes.size() != size * (dtype == "f16" ? 2 : 4))
      throw std::runtime_error(path + " has " + std::to_string(bytes.size()) + " bytes");
    GoldenTensor tensor{shape[0], shape[1], shape[2], std::vector<float>(size)};
    for (std::size_t at = 0; at < size; ++at) {
      if (dtype == "f16") {
        half number;
        std::memcpy(&number, bytes.data() + 2 * at, 2);
        tensor.numbers[at] = to_float(number);
      } else {
        std::memcpy(&tensor.numbers[at], bytes.data() + 4 * at, 4);
      }
    }
    return tensor;
  }

  std::string folder_;
  nlohmann::json index_;
  std::map<std::string, GoldenTensor> tensors_;
};

}  // namespace kvast::test
