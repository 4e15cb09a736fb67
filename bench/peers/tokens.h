// SPDX-License-Identifier: Apache-2.0
// One layer's keys, values and query as floats, and what attention over them is in double.
#pragma once

#include <cstddef>
#include <vector>

#include "tests/support/reference.h"

namespace kvast::peers {

struct Tokens {
  int query_heads = 0;
  int heads = 0;
  int dim = 0;
  std::vector<float> keys{};    ///< [count][heads][dim]
  std::vector<float> values{};  ///< as keys
  std::vector<float> query{};   ///< [query_heads][dim]

  std::size_t count() const { return keys.size() / static_cast<std::size_t>(heads * dim); }

  /// [query_heads][dim]
  std::vector<double> attended() const {
    test::ReferenceLayer reference(query_heads, heads, dim, dim);
    const auto row = static_cast<std::size_t>(heads * dim);
    for (std::size_t token = 0; token < count(); ++token) {
      const int position = static_cast<int>(token);
      reference.append({&position, 1}, keys.data() + token * row, values.data() + token * row);
    }
    std::vector<double> outputs;
    for (int head = 0; head < query_heads; ++head) {
      const auto sight = reference.attend(head, static_cast<int>(count()),
                                          query.data() + static_cast<std::size_t>(head * dim));
      outputs.insert(outputs.end(), sight.output.begin(), sight.output.end());
    }
    return outputs;
  }
};

}  // namespace kvast::peers
