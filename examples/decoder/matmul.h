// SPDX-License-Identifier: Apache-2.0
// Products of weight matrices with the activations of a pass: the decoder's time, apart from the
// cache.
#pragma once

#include <initializer_list>

#include "examples/decoder/panels.h"
#include "examples/decoder/weights.h"
#include "kvast/core/executor.h"

namespace kvast::decoder {

/// How a single token meets quantised weights. (Several tokens are always multiplied in float.)
enum class Precision {
  fast,  ///< activations in 15-bit integers per block of 32
  exact  ///< activations in float
};

/// output[first_feature + row] = weights[row] . input, or += with `accumulate`.
struct Product {
  const Matrix& weights;
  Panels& output;  ///< as many tokens as the input, and at least first_feature + rows features
  int first_feature = 0;
  bool accumulate = false;
};

/// Room for one token's integers, kept between calls so that a step allocates nothing.
struct MatmulScratch {
  IntegerVector integers;
};

/// Runs all `products` of one input as one parallel loop over blocks of rows. The result does not
/// depend on the executor. The input has weights.columns features.
void multiply(const Executor& executor, const Panels& input,
              std::initializer_list<Product> products, Precision precision, MatmulScratch& scratch);

}  // namespace kvast::decoder
