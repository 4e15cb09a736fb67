// SPDX-License-Identifier: Apache-2.0
// What a build without CUDA says to --device gpu.
#include "bench/quality/any_model.h"
#include "examples/decoder/device_error.h"

namespace kvast::quality {

std::unique_ptr<AnyModel> open_on_gpu(const decoder::LlamaWeights&) {
  throw decoder::DeviceError(
      "--device gpu: this program was built without CUDA; configure with -DKVAST_CUDA=ON");
}

}  // namespace kvast::quality
