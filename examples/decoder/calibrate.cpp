// SPDX-License-Identifier: Apache-2.0
#include "examples/decoder/calibrate.h"

#include <vector>

#include "kvast/calibrate/weights.h"

namespace kvast::decoder {

WeightCalibration calibrate_weights(const Llama& model) {
  const LlamaConfig& config = model.config();
  std::vector<std::vector<float>> numbers;
  for (int layer = 0; layer < config.layers; ++layer) {
    numbers.push_back(model.key_projection(layer));
    numbers.push_back(model.value_projection(layer));
  }
  std::vector<ProjectionWeights> layers;
  for (std::size_t at = 0; at < numbers.size(); at += 2)
    layers.push_back({numbers[at], numbers[at + 1], config.embedding});
  return kvast::calibrate_weights(config.shape(), layers);
}

}  // namespace kvast::decoder
